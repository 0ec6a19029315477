//! The use cases. Permission is asked here, in one place.
