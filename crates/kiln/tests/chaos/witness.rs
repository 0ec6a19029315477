//! What guests did, told by a way that is not the farm's: files of the harness.
//!
//! Each task's script reads [`WORDS`], and writes what it writes to its output a second time
//! into a file of its own, and when it begins and ends into one that all share: lines short
//! enough to be written whole.

use std::{
    fs,
    path::{Path, PathBuf},
};

use kiln_core::{
    farm::{Fence, JobId},
    testing::history::{Entry, Event, Text},
};

/// bash, for tasks. The guest's directory is called after the fence.
const SCRIPT: &str = r#"{ set +x; } 2>/dev/null
begin() {
	task=$1
	fence=${HOME%/guest/home}
	fence=${fence##*/}
	out=$trace/$JOB_ID.$fence.$task
	printf 'started %s %s %s %s\n' "$EPOCHREALTIME" "$JOB_ID" "$fence" "$task" >>"$trace/events"
}
write() {
	printf '%s\n' "$1"
	printf '%s\n' "$1" >>"$out"
}
say() {
	local number pause
	pause=$(($2 / 1000)).$(printf %03d $(($2 % 1000)))
	for ((number = 1; number <= $1; number++)); do
		write "$JOB_ID/$fence/$task says $number"
		[ "$2" -eq 0 ] || sleep "$pause"
	done
}
much() { seq -f "$JOB_ID/$fence/$task %.0f has much to say, and says it at once" "$1" | tee -a "$out"; }
stay() {
	local second
	for ((second = 1; ; second++)); do
		sleep 1
		write "$JOB_ID/$fence/$task stays for the ${second}th second"
	done
}
finish() {
	printf 'ended %s %s %s %s\n' "$EPOCHREALTIME" "$JOB_ID" "$fence" "$task" >>"$trace/events"
	exit "$1"
}
"#;

pub struct Witness {
    dir: PathBuf,
}

impl Witness {
    pub fn new(dir: &Path) -> Self {
        fs::create_dir_all(dir).expect("a directory");
        let trace = format!("trace={}\n", dir.display());
        fs::write(dir.join("words"), trace + SCRIPT).expect("a file");
        fs::write(dir.join("events"), "").expect("a file");
        Self {
            dir: dir.to_owned(),
        }
    }

    /// What tasks read.
    pub fn words(&self) -> String {
        self.dir.join("words").display().to_string()
    }

    /// All that was written.
    pub fn entries(&self) -> Vec<Entry> {
        let text = fs::read_to_string(self.dir.join("events")).expect("a file");
        text.lines().flat_map(|line| self.read(line)).collect()
    }

    fn read(&self, line: &str) -> Vec<Entry> {
        let words: Vec<&str> = line.split(' ').collect();
        let [what, at, job, fence, task] = words.as_slice() else {
            panic!("a guest wrote: {line}");
        };
        let at: u64 = at.replace(['.', ','], "").parse().expect("a moment");
        let number: i32 = job.parse().expect("a job");
        let job = JobId(number);
        let fence = Fence(fence.parse().expect("a fence"));
        let task = (*task).to_owned();
        if *what == "ended" {
            let event = Event::TaskEnded { job, fence, task };
            return vec![Entry { at, event }];
        }
        let file = self.dir.join(format!("{job}.{fence}.{task}"));
        let mut bytes = fs::read(file).unwrap_or_default();
        // A writer that was killed may have left a part of a line.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n');
        bytes.truncate(whole.map_or(0, |last| last + 1));
        let started = Event::TaskStarted {
            job,
            fence,
            task: task.clone(),
        };
        let bytes = Text(bytes);
        let produced = Event::Produced {
            job,
            fence,
            task,
            bytes,
        };
        [started, produced].map(|event| Entry { at, event }).into()
    }
}
