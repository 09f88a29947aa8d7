//! Problems as they are found, each with its line.

use std::collections::BTreeMap;

use super::{Fault, Problem, Severity};

/// Where each key stands in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places(BTreeMap<String, u32>);

impl Places {
    /// Notes that the key `path` stands on `line`.
    pub fn note(&mut self, path: &str, line: u32) {
        self.0.insert(path.to_owned(), line);
    }

    /// Line of the key `path`, or of the nearest table around it when the key itself was left out.
    pub fn line(&self, path: &str) -> Option<u32> {
        let mut path = path;
        loop {
            if let Some(line) = self.0.get(path) {
                return Some(*line);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }
}

/// Collects problems while a file is checked.
#[derive(Debug, Default)]
pub struct Problems {
    /// Where keys stand.
    pub places: Places,
    found: Vec<Problem>,
}

impl Problems {
    /// Starts with what an earlier stage knows.
    pub fn with_places(places: Places) -> Self {
        Self { places, found: Vec::new() }
    }

    /// Records an error at `path`.
    pub fn error(&mut self, path: &str, fault: Fault) {
        self.add(Severity::Error, path, fault);
    }

    /// Records a warning at `path`.
    pub fn warning(&mut self, path: &str, fault: Fault) {
        self.add(Severity::Warning, path, fault);
    }

    /// Records an error at a line that belongs to no key.
    pub fn error_at_line(&mut self, line: Option<u32>, fault: Fault) {
        self.found.push(Problem { severity: Severity::Error, path: String::new(), line, fault });
    }

    /// Whether an error has been recorded.
    pub fn any_error(&self) -> bool {
        self.found.iter().any(Problem::is_error)
    }

    /// Whether something below `path`, such as an entry of a list, has been found wrong.
    pub fn complained_below(&self, path: &str) -> bool {
        let below = |found: &str| found.strip_prefix(path).is_some_and(|rest| rest.starts_with(['.', '[']));
        self.found.iter().any(|problem| below(&problem.path))
    }

    /// Whether `path` itself has been found wrong.
    pub fn complained_at(&self, path: &str) -> bool {
        self.found.iter().any(|problem| problem.path == path)
    }

    /// Everything recorded, in the order of the file.
    pub fn into_sorted(mut self) -> (Vec<Problem>, Places) {
        self.found.sort_by(|a, b| (a.line, a.severity, &a.path).cmp(&(b.line, b.severity, &b.path)));
        self.found.dedup();
        (self.found, self.places)
    }

    fn add(&mut self, severity: Severity, path: &str, fault: Fault) {
        let line = self.places.line(path);
        self.found.push(Problem { severity, path: path.to_owned(), line, fault });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_left_out_stands_where_its_table_stands() {
        let mut places = Places::default();
        places.note("nat64", 3);
        places.note("nat64.pool4[1]", 9);
        assert_eq!(places.line("nat64.pool4[1].ports"), Some(9));
        assert_eq!(places.line("nat64.pool4[0].ports"), Some(3));
        assert_eq!(places.line("nat64.block-size"), Some(3));
        assert_eq!(places.line("dns64.listen"), None);
    }
}
