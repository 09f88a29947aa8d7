//! Stand-in: the daemon is written elsewhere.

use std::path::Path;

use crate::control::plan::Plan;
use crate::faults;

faults! {
    /// Why `sampan run` ended.
    pub enum StartError {
        NoDataPlane
            en "this build has no data plane" => "use a complete build"
            vi "bản dựng này không có phần xử lý gói tin" => "dùng bản dựng đầy đủ";
    }
}

/// Runs the gateway until it is told to stop.
pub fn run(_plan: Plan, _config: &Path) -> Result<(), StartError> {
    Err(StartError::NoDataPlane)
}

/// Takes away what a gateway that does not run any more has left.
pub fn flush(_plan: &Plan) -> Result<(), StartError> {
    Err(StartError::NoDataPlane)
}
