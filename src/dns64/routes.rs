//! Conditional forwarding: which upstream group is asked for which names.

use hickory_proto::rr::Name;

/// A group of upstream resolvers; what its servers are is the caller's matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Group(pub u16);

/// Names that a group of their own is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// This name and what is below it.
    pub suffix: Name,
    /// Who is asked.
    pub group: Group,
    /// Whether that group validates and the path to it is trusted.
    pub trust_ad: bool,
}

/// All routes, compiled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes(Vec<Route>);

impl Routes {
    /// The route of a name: the longest suffix counts.
    pub(super) fn find(&self, name: &Name) -> Option<&Route> {
        self.0.iter().find(|route| route.suffix.zone_of(name))
    }
}

impl FromIterator<Route> for Routes {
    fn from_iter<I: IntoIterator<Item = Route>>(routes: I) -> Self {
        let mut routes: Vec<_> = routes.into_iter().collect();
        routes.sort_by_key(|route| std::cmp::Reverse(route.suffix.num_labels()));
        Self(routes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_suffix_counts_whatever_its_case() {
        let route = |suffix: &str, group| Route {
            suffix: Name::from_ascii(suffix).unwrap(),
            group: Group(group),
            trust_ad: false,
        };
        let routes: Routes = [route("vn.", 1), route("so.tinh.vn.", 2)].into_iter().collect();
        let of = |name: &str| routes.find(&Name::from_ascii(name).unwrap()).map(|route| route.group.0);
        assert_eq!(of("www.SO.tinh.vn."), Some(2));
        assert_eq!(of("so.tinh.vn."), Some(2));
        assert_eq!(of("xso.tinh.vn."), Some(1));
        assert_eq!(of("example."), None);
    }
}
