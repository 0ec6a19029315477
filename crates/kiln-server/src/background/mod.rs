//! Passes that look at the truth and do one step.
