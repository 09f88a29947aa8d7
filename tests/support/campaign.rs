//! How a test at full size is told its size, and tells its figures.

/// The number in environment variable `name`.
pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// Prints the figures, and writes them to the file that `SAMPAN_REPORT` names.
pub fn report(figures: &str) {
    println!("{figures}");
    if let Ok(file) = std::env::var("SAMPAN_REPORT") {
        std::fs::write(file, figures).expect("the file of SAMPAN_REPORT can be written");
    }
}
