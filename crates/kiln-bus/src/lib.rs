//! Hints between the servers of a farm: "look again at X". Nothing is ever only here.
