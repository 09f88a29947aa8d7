//! Texts for operators in English and Vietnamese. A room declares its texts with [`texts!`](crate::texts) or [`faults!`](crate::faults); the
//! macros make both languages and the arguments of every text a matter of compilation.
//!
//! Names of keys, counters, commands and JSON fields are the same in both languages and never pass through here.

use std::fmt::Display;

/// A language that the program speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lang {
    /// English.
    #[default]
    En,
    /// Vietnamese.
    Vi,
}

impl Lang {
    /// The language called `name`: `en`, `vi`, or a locale such as `vi_VN.UTF-8`.
    pub fn from_name(name: &str) -> Option<Self> {
        match name.split(['_', '.', '-', '@']).next()? {
            "en" | "C" | "POSIX" => Some(Self::En),
            "vi" => Some(Self::Vi),
            _ => None,
        }
    }

    /// The language of the environment, `get` being its look-up: `LC_ALL`, `LC_MESSAGES`, `LANG`, the first that
    /// is set and not empty (POSIX order); English otherwise.
    pub fn from_env(get: impl Fn(&str) -> Option<String>) -> Self {
        ["LC_ALL", "LC_MESSAGES", "LANG"]
            .into_iter()
            .find_map(|name| get(name).filter(|value| !value.is_empty()))
            .and_then(|value| Self::from_name(&value))
            .unwrap_or_default()
    }

    /// `en` or `vi`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Vi => "vi",
        }
    }
}

/// Declares an enum of texts. Arguments are named in braces, as in `format!`.
#[macro_export]
macro_rules! texts {
    ($(#[$meta:meta])* pub enum $name:ident {
        $($variant:ident $({ $($arg:ident: $type:ty),+ $(,)? })? en $en:literal vi $vi:literal;)+
    }) => {
        $(#[$meta])*
        // The texts are shown as they are; brackets in them are no links.
        #[allow(rustdoc::broken_intra_doc_links)]
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $name {
            $(#[doc = $en] $variant $({ $(#[doc = "Stands in the text."] $arg: $type),+ })?,)+
        }

        impl $name {
            /// Name and templates (English, Vietnamese) of every text.
            #[cfg(test)]
            pub const CATALOGUE: &'static [(&'static str, &'static str, &'static str)] =
                &[$((stringify!($variant), $en, $vi),)+];

            /// The text in one language.
            #[allow(clippy::useless_format)]
            pub fn say(&self, lang: $crate::text::Lang) -> String {
                match self {
                    $(Self::$variant $({ $($arg),+ })? => match lang {
                        $crate::text::Lang::En => format!($en),
                        $crate::text::Lang::Vi => format!($vi),
                    },)+
                }
            }
        }
    };
}

/// Declares an enum of faults: for each what is wrong, and after `=>` what to do about it.
#[macro_export]
macro_rules! faults {
    ($(#[$meta:meta])* pub enum $name:ident {
        $($variant:ident $({ $($arg:ident: $type:ty),+ $(,)? })?
            en $en:literal => $en_remedy:literal
            vi $vi:literal => $vi_remedy:literal;)+
    }) => {
        $(#[$meta])*
        // The texts are shown as they are; brackets in them are no links.
        #[allow(rustdoc::broken_intra_doc_links)]
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $name {
            $(#[doc = $en] $variant $({ $(#[doc = "Stands in the text."] $arg: $type),+ })?,)+
        }

        impl $name {
            /// Name and templates (English, Vietnamese) of every text; a remedy has the name of its fault.
            #[cfg(test)]
            pub const CATALOGUE: &'static [(&'static str, &'static str, &'static str)] =
                &[$((stringify!($variant), $en, $vi), (stringify!($variant), $en_remedy, $vi_remedy),)+];

            /// A name for scripts and searches, the same in every language.
            pub fn code(&self) -> String {
                $crate::text::kebab(match self {
                    $(Self::$variant { .. } => stringify!($variant),)+
                })
            }

            /// What is wrong.
            #[allow(clippy::useless_format, unused_variables)]
            pub fn what(&self, lang: $crate::text::Lang) -> String {
                match self {
                    $(Self::$variant $({ $($arg),+ })? => {
                        $($(let $arg = $crate::text::Said::said($arg, lang);)+)?
                        match lang {
                            $crate::text::Lang::En => format!($en),
                            $crate::text::Lang::Vi => format!($vi),
                        }
                    })+
                }
            }

            /// What the operator can do about it.
            #[allow(clippy::useless_format, unused_variables)]
            pub fn remedy(&self, lang: $crate::text::Lang) -> String {
                match self {
                    $(Self::$variant $({ $($arg),+ })? => {
                        $($(let $arg = $crate::text::Said::said($arg, lang);)+)?
                        match lang {
                            $crate::text::Lang::En => format!($en_remedy),
                            $crate::text::Lang::Vi => format!($vi_remedy),
                        }
                    })+
                }
            }
        }
    };
}

/// What a fault's text shows of an argument.
pub trait Said {
    /// The argument in `lang`.
    fn said(&self, lang: Lang) -> impl Display;
}

impl<T: Display> Said for T {
    fn said(&self, _: Lang) -> impl Display {
        self
    }
}

/// A text in both languages, as an argument of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Both {
    en: String,
    vi: String,
}

impl Both {
    /// What `say` says.
    pub fn of(say: impl Fn(Lang) -> String) -> Self {
        Self { en: say(Lang::En), vi: say(Lang::Vi) }
    }
}

impl Said for Both {
    fn said(&self, lang: Lang) -> impl Display {
        match lang {
            Lang::En => &self.en,
            Lang::Vi => &self.vi,
        }
    }
}

/// `UnknownKey` → `unknown-key`.
pub fn kebab(camel: &str) -> String {
    let mut out = String::with_capacity(camel.len() + 4);
    for c in camel.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('-');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// Text that somebody else wrote, made safe for a terminal: control characters are escaped, and it is cut after
/// `max` characters.
pub fn shown(text: &str, max: usize) -> String {
    let mut out = String::new();
    for (i, c) in text.chars().enumerate() {
        if i == max {
            out.push('…');
            break;
        }
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// Checks a catalogue: both languages are there, differ, and use the same arguments. For the tests of the rooms.
#[cfg(test)]
pub fn check_catalogue(catalogue: &[(&str, &str, &str)]) {
    fn arguments(template: &str) -> std::collections::BTreeSet<&str> {
        template.split('{').skip(1).filter_map(|rest| rest.split(['}', ':']).next()).collect()
    }
    for (name, en, vi) in catalogue {
        assert!(!en.is_empty() && !vi.is_empty(), "{name}");
        assert_eq!(arguments(en), arguments(vi), "{name}: arguments differ between the languages");
        let technical = en.chars().filter(|c| c.is_alphabetic()).count() < 5 || en.to_uppercase() == **en;
        assert!(en != vi || technical, "{name} is not translated");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn language_comes_from_the_first_variable_that_is_set() {
        let env = |pairs: &'static [(&str, &str)]| {
            Lang::from_env(|name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string()))
        };
        assert_eq!(env(&[]), Lang::En);
        assert_eq!(env(&[("LANG", "vi_VN.UTF-8")]), Lang::Vi);
        assert_eq!(env(&[("LANG", "vi_VN.UTF-8"), ("LC_ALL", "C")]), Lang::En);
        assert_eq!(env(&[("LC_ALL", ""), ("LANG", "vi")]), Lang::Vi);
        assert_eq!(env(&[("LANG", "fr_FR.UTF-8")]), Lang::En);
    }

    #[test]
    fn foreign_text_cannot_drive_the_terminal() {
        assert_eq!(shown("a\u{1b}[31m", 60), "a\\u{1b}[31m");
        assert_eq!(shown("Sở Tài chính", 2), "Sở…");
    }

    #[test]
    fn codes_are_kebab() {
        assert_eq!(kebab("UnknownKey"), "unknown-key");
    }
}
