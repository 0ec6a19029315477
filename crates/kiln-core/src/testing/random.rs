//! Numbers that a seed decides: SplitMix64.

/// The numbers of one seed.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// From their beginning.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number: any.
    #[expect(
        clippy::should_implement_trait,
        reason = "there is always one: an iterator would say `Some` for nothing"
    )]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From one to the other, which it never is.
    pub fn within(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from).max(1)
    }

    /// In one of so many cases.
    pub fn one_in(&mut self, cases: u64) -> bool {
        self.next().is_multiple_of(cases)
    }

    /// One of these.
    ///
    /// # Panics
    /// When there is none.
    pub fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.place(all.len())]
    }

    /// A place among so many.
    pub fn place(&mut self, many: usize) -> usize {
        let place = self.within(0, many as u64);
        usize::try_from(place).unwrap_or_default()
    }
}
