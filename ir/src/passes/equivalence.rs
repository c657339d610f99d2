//! Random blocks behave the same before and after the passes.

use proptest::prelude::*;

use super::{Scratch, optimize};
use crate::block::Block;
use crate::interp::{Interp, Outcome};
use crate::testing::{self, ENV_SIZE, ToyGuest};
use crate::text::parse;
use crate::verify::verify;

fn run(block: &Block, seed: u64) -> (Outcome, ToyGuest) {
    let mut interp = Interp::default();
    // Values left by an earlier run must not show.
    interp.run(block, &mut ToyGuest::new(!seed));
    let mut guest = ToyGuest::new(seed);
    (interp.run(block, &mut guest), guest)
}

/// Optimizes `block` and runs both on the guests of a few seeds.
pub(super) fn check(block: &Block, scratch: &mut Scratch, seeds: &[u64]) -> Result<Block, TestCaseError> {
    let mut optimized = block.clone();
    optimize(&mut optimized, scratch);
    prop_assert_eq!(verify(&optimized, ENV_SIZE), Ok(()), "{}", optimized);
    prop_assert!(optimized.insts.len() <= block.insts.len());
    for &seed in seeds {
        prop_assert_eq!(run(&optimized, seed), run(block, seed), "{}=>\n{}", block, optimized);
    }
    Ok(optimized)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_blocks(bytes in proptest::collection::vec(any::<u8>(), 0..700), seed: u64) {
        let mut scratch = Scratch::default();
        let block = testing::block(&bytes);
        prop_assert_eq!(verify(&block, ENV_SIZE), Ok(()), "{}", block);
        prop_assert_eq!(parse(&block.to_string()), Ok(block.clone()));
        let seeds = [seed, seed ^ 1, seed ^ 2];
        let once = check(&block, &mut scratch, &seeds)?;
        prop_assert_eq!(parse(&once.to_string()), Ok(once.clone()));
        // A scratch with a history, and a block that was optimized before.
        check(&once, &mut scratch, &seeds)?;
    }
}
