//! Why a queued job waits, in a sentence.

use kiln_store::model::WaitReason;

/// Why a queued job waits. Names no worker's host: workers by their names.
pub(crate) fn sentence(reason: &WaitReason) -> String {
    match reason {
        WaitReason::NoImage => "no worker that is here has this image".into(),
        WaitReason::NoLabels => {
            "no worker that is here has this image and the labels that the job requires".into()
        }
        WaitReason::NoneReady(which) => format!("the workers that could take no jobs: {which}"),
        WaitReason::ShareCap(cap) => {
            format!("as many jobs of this owner run as may at once: {cap}")
        }
        WaitReason::Busy(position) => {
            format!("all slots for these requirements are busy; position {position}")
        }
        WaitReason::ShortOf(which) => {
            format!("the workers that could lack memory or disk: {which}")
        }
        WaitReason::Next => "it is next".into(),
    }
}
