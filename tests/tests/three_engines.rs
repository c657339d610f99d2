//! The interpreter, compiled code and the host's own processor agree on every instruction form that is lifted.
//!
//! `MIMUS_TEST_SEED` chooses other cases than the usual ones, `MIMUS_TEST_FACTOR` runs so many times as many.

#![forbid(unsafe_code)]

use iced_x86::{Code, CpuidFeature, Mnemonic};
use mimus_engine::lockstep::{BlockRunner, Compiled};
use mimus_frontend::x86::{Cpu, Mode};
use mimus_ir::Block;
use mimus_tests::engines::case::{Case, case};
use mimus_tests::engines::compare::{data_differences, differences, report};
use mimus_tests::engines::guest::{Guest, Passes, World};
use mimus_tests::engines::layout::{CODE, DATA_LEN};
use mimus_tests::engines::program::{self, Program};
use mimus_tests::engines::{Outcome, case as make};
use mimus_tests::engines::{form, latitude};
use mimus_tests::rng::Rng;

/// A number given to the test by the environment.
fn option(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")),
        Err(_) => default,
    }
}

fn seed() -> u64 {
    let seed = option("MIMUS_TEST_SEED", 1);
    println!("seed {seed}");
    seed
}

fn factor() -> u32 {
    option("MIMUS_TEST_FACTOR", 1).clamp(1, 1_000_000) as u32
}

/// What came of one form.
#[derive(Default)]
struct Tally {
    run: u32,
    failed: u32,
    first: Option<String>,
}

impl Tally {
    fn count(&mut self, found: &[String], describe: impl FnOnce() -> String) {
        self.run += 1;
        if !found.is_empty() {
            self.failed += 1;
            self.first.get_or_insert_with(describe);
        }
    }
}

/// Runs `test` for every form and fails with the first case of each that differs.
fn every_form(codes: impl Iterator<Item = Code>, mut test: impl FnMut(Code) -> Tally) {
    let (mut forms, mut cases) = (0, 0u64);
    let mut failures = Vec::new();
    for code in codes {
        let tally = test(code);
        forms += 1;
        cases += u64::from(tally.run);
        if tally.run == 0 {
            failures.push(format!("{code:?}: no case could be run\n"));
        }
        if let Some(first) = tally.first {
            failures.push(format!("{} of {}: {first}", tally.failed, tally.run));
        }
    }
    println!("{forms} forms, {cases} cases, {} forms differ", failures.len());
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
#[test]
#[ignore = "not run on this host: the oracle is an x86-64 processor under Linux"]
fn interpreter_agrees_with_the_host() {}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[test]
fn interpreter_agrees_with_the_host() {
    /// Cases of each form.
    const CASES: u32 = 300;
    let rng = Rng::new(seed());
    let cases = CASES.saturating_mul(factor());
    for world in [World::USER, World::USER32] {
        println!("{world:?}");
        // One at a time: the oracle is the process's only one.
        let mut rig = host::Rig::new(world);
        every_form(form::compared(world.bits), |code| rig.form(code, rng.part(code as u64), cases));
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod host {
    use mimus_tests::engines::host::Host;

    use super::*;

    pub struct Rig {
        world: World,
        host: Host,
        guest: Guest,
        data: Vec<u8>,
    }

    impl Rig {
        pub fn new(world: World) -> Rig {
            Rig { world, host: Host::new().expect("the host"), guest: Guest::new(world), data: vec![0; DATA_LEN] }
        }

        fn fill(&mut self, rng: &mut Rng) {
            for chunk in self.host.data().chunks_mut(8) {
                chunk.copy_from_slice(&rng.next_u64().to_le_bytes()[..chunk.len()]);
            }
        }

        fn compare(&mut self, case: &Case, passes: Passes) -> Option<Vec<String>> {
            if latitude::undefined_result(&case.insn, &case.registers).is_some() {
                return None;
            }
            for (at, bytes) in &case.patches {
                self.host.data()[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            self.guest.write_data(self.host.data());
            let bits = self.world.bits;
            let mut want = self.host.step(bits, &case.code, &case.registers).ok()?;
            want.registers = want.registers.visible(bits);
            if want.trap.is_some() && latitude::several_steps(&case.insn) {
                // POPA has loaded some of them by then, or none.
                want.registers.gpr = case.registers.gpr;
            }
            let got = match self.guest.step(&case.code, &case.registers, passes) {
                Ok(got) => Outcome { registers: got.registers.visible(bits), ..got },
                Err(problem) => return Some(vec![problem]),
            };
            const ES: u16 = 0x80;
            const BR: u8 = 5;
            let own = want.registers.fx16(2) & ES != 0 || want.trap.is_some_and(|trap| trap.vector == BR);
            if own && got.trap.is_some_and(|trap| trap.vector != BR) && latitude::own_first(&case.insn) {
                return None;
            }
            let mut found = differences(Some((&case.insn, &case.registers)), &want, &got);
            self.guest.read_data(&mut self.data);
            for &(from, len) in latitude::undefined_memory(&case.insn) {
                let Some((at, _)) = case.patches.first() else { continue };
                let part = (at + from).min(DATA_LEN)..(at + from + len).min(DATA_LEN);
                self.data[part.clone()].copy_from_slice(&self.host.data()[part]);
            }
            if want.trap.is_none() || !latitude::several_steps(&case.insn) {
                found.extend(data_differences(self.host.data(), &self.data));
            }
            Some(found)
        }

        pub fn form(&mut self, code: Code, mut rng: Rng, cases: u32) -> Tally {
            let mut tally = Tally::default();
            self.fill(&mut rng);
            for attempt in 0..4 * cases {
                let Some(mut case) = case(&mut rng, code, self.world.bits) else { continue };
                case.registers = case.registers.visible(self.world.bits);
                let passes = if attempt % 2 == 0 { Passes::None } else { Passes::All };
                let Some(found) = self.compare(&case, passes) else { continue };
                tally.count(&found, || report(&case, &found));
                if tally.run == cases {
                    break;
                }
            }
            tally
        }
    }
}

/// A block for both engines.
struct Lifted {
    mode: Mode,
    plain: Block,
    compiled: Compiled,
}

/// Two vCPUs, one for each engine.
struct Pair {
    world: World,
    interpreted: Guest,
    compiled: Guest,
    runner: BlockRunner<Cpu>,
    /// Blocks compiled.
    blocks: u32,
    data: [Vec<u8>; 2],
}

impl Pair {
    fn new(world: World) -> Pair {
        Pair {
            world,
            interpreted: Guest::new(world),
            compiled: Guest::new(world),
            runner: BlockRunner::new().expect("a compiler for this host"),
            blocks: 0,
            data: [vec![0; DATA_LEN], vec![0; DATA_LEN]],
        }
    }

    /// Differences beside those of outcomes: system registers and data.
    fn other_differences(&mut self) -> Vec<String> {
        let [a, b] = &mut self.data;
        self.interpreted.read_data(a);
        self.compiled.read_data(b);
        let mut found = data_differences(a, b);
        let (want, got) = (self.interpreted.whole_state(), self.compiled.whole_state());
        if want != got {
            found.push(format!("other registers: {got:x?}\nnot {want:x?}"));
        }
        found
    }

    /// Cases of one form: one instruction, compiled once, with several sets of registers.
    fn form(&mut self, code: Code, mut rng: Rng, instructions: u32, sets: u32) -> Tally {
        let mut tally = Tally::default();
        for attempt in 0..8 * instructions {
            let Some(case) = case(&mut rng, code, self.world.bits) else { continue };
            let passes = if attempt % 2 == 0 { Passes::None } else { Passes::All };
            self.instruction(&mut tally, &case, passes, &mut rng, sets);
            if tally.run >= instructions * sets {
                break;
            }
        }
        tally
    }

    /// Compiles a block: two by the compiler, then two by the quick tier if it does them, and so on.
    fn compile(&mut self, block: &Block) -> Result<Compiled, String> {
        self.blocks += 1;
        let quick = if self.blocks & 2 != 0 { self.runner.compile_quick(block) } else { None };
        match quick {
            Some(compiled) => Ok(compiled),
            None => self.runner.compile(block).map_err(|e| e.to_string()),
        }
    }

    /// The case's block for both engines, in the mode that its registers make.
    fn blocks(&mut self, case: &Case, passes: Passes) -> Result<Lifted, String> {
        self.interpreted.load(&case.registers, CODE);
        self.compiled.load(&case.registers, CODE);
        let plain = self.interpreted.lift(&case.code, CODE, 1, Passes::None)?;
        let block = self.compiled.lift(&case.code, CODE, 1, passes)?;
        let compiled = self.compile(&block)?;
        Ok(Lifted { mode: self.compiled.cpu().mode, plain, compiled })
    }

    fn instruction(&mut self, tally: &mut Tally, case: &Case, passes: Passes, rng: &mut Rng, sets: u32) {
        self.interpreted.write_code(&case.code);
        self.compiled.write_code(&case.code);
        let mut lifted: Option<Lifted> = None;
        for _ in 0..sets {
            let (registers, patches) = make::place(rng, &case.insn);
            let case = Case { registers, patches, ..case.clone() };
            self.compiled.load(&case.registers, CODE);
            let mode = self.compiled.cpu().mode;
            let blocks = match lifted.take().filter(|l| l.mode == mode) {
                Some(blocks) => blocks,
                None => match self.blocks(&case, passes) {
                    Ok(blocks) => blocks,
                    Err(problem) => {
                        let found = std::slice::from_ref(&problem);
                        return tally.count(found, || report(&case, found));
                    }
                },
            };
            let [data, _] = &mut self.data;
            self.interpreted.read_data(data);
            for (at, bytes) in &case.patches {
                data[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            self.interpreted.write_data(data);
            self.compiled.write_data(data);
            self.interpreted.load(&case.registers, CODE);
            self.compiled.load(&case.registers, CODE);
            let want = self.interpreted.interpret(&blocks.plain);
            let got = self.compiled.run_compiled(&mut self.runner, blocks.compiled);
            let mut found = compare(&want, &got);
            found.extend(self.other_differences());
            tally.count(&found, || report(&case, &found));
            lifted = Some(blocks);
        }
    }

    /// Runs a program on both engines block by block; where they first differ. The outcome of the interpreter, if they
    /// agree.
    fn program(&mut self, program: &Program) -> Result<Outcome, Vec<String>> {
        let code = program.code();
        let end = CODE + code.len() as u64;
        for guest in [&mut self.interpreted, &mut self.compiled] {
            guest.write_data(&program.data);
            guest.write_code(&code);
        }
        let mut outcome = Outcome { registers: program.registers.clone(), rip: CODE, trap: None };
        for _ in 0..64 {
            if outcome.trap.is_some() || !(CODE..end).contains(&outcome.rip) {
                break;
            }
            let rip = outcome.rip;
            self.interpreted.load(&outcome.registers, rip);
            self.compiled.load(&outcome.registers, rip);
            let want = self.interpreted.lift(&code, rip, 64, Passes::None).and_then(|b| self.interpreted.interpret(&b));
            let block = self.compiled.lift(&code, rip, 64, Passes::All).map_err(|problem| vec![problem])?;
            let compiled = self.compile(&block).map_err(|problem| vec![problem])?;
            let got = self.compiled.run_compiled(&mut self.runner, compiled);
            let mut found = compare(&want, &got);
            found.extend(self.other_differences());
            if !found.is_empty() {
                found.insert(0, format!("in the block at {rip:#x}:"));
                return Err(found);
            }
            match want {
                Ok(next) => outcome = next,
                Err(problem) => return Err(vec![problem]),
            }
        }
        Ok(outcome)
    }

    /// What is wrong with a program, if anything is; `stepped` is its outcome one instruction at a time.
    fn check(&mut self, program: &Program, stepped: Option<&Outcome>) -> Vec<String> {
        match (self.program(program), stepped) {
            (Err(found), _) => found,
            (Ok(blocks), Some(stepped)) => {
                let mut found = differences(None, stepped, &blocks);
                if !found.is_empty() {
                    found.insert(0, "blocks against single instructions:".into());
                }
                found
            }
            (Ok(_), None) => Vec::new(),
        }
    }

    /// Removes instructions for as long as what is left still differs.
    fn shrink(&mut self, mut program: Program) -> (Program, Vec<String>) {
        let mut found = self.check(&program, None);
        if found.is_empty() {
            return (program, found);
        }
        for n in (0..program.insns.len()).rev() {
            let smaller = program.without(n);
            let still = self.check(&smaller, None);
            if !still.is_empty() {
                (program, found) = (smaller, still);
            }
        }
        (program, found)
    }
}

/// Differences of two engines that must do the same in all respects.
fn compare(want: &Result<Outcome, String>, got: &Result<Outcome, String>) -> Vec<String> {
    match (want, got) {
        (Ok(want), Ok(got)) => differences(None, want, got),
        (Err(want), Err(got)) if want == got => Vec::new(),
        (want, got) => vec![format!("{got:x?}, not {want:x?}")],
    }
}

#[test]
fn compiled_code_agrees_with_the_interpreter() {
    /// Instructions of each form, and sets of registers for each.
    const INSTRUCTIONS: u32 = 3;
    const SETS: u32 = 12;
    let rng = Rng::new(seed());
    let instructions = INSTRUCTIONS.saturating_mul(factor());
    for world in [World::USER, World { bits: 64, cpl: 0 }, World::USER32, World { bits: 32, cpl: 0 }] {
        println!("{world:?}");
        let mut pair = Pair::new(world);
        every_form(form::lifted(world.bits), |code| pair.form(code, rng.part(code as u64), instructions, SETS));
    }
}

/// Compares `count` programs made of `codes`: the same ones on every machine.
fn programs_agree(codes: &[Code], count: u64) {
    /// Most instructions in a program.
    const LENGTH: u64 = 20;
    let fixed = seed();
    let count = count.saturating_mul(u64::from(factor()));
    let (mut pair, mut guest) = (Pair::new(World::USER), Guest::new(World::USER));
    let (mut programs, mut insns) = (0u64, 0);
    let mut failures = Vec::new();
    while programs < count && failures.len() < 5 {
        let mut rng = Rng::new(fixed).part(programs);
        let (program, stepped) = program::program(&mut rng, &mut guest, codes, LENGTH);
        programs += 1;
        insns += program.insns.len();
        let found = pair.check(&program, Some(&stepped));
        if !found.is_empty() {
            let (small, still) = pair.shrink(program.clone());
            let (shown, found) = if still.is_empty() { (program, found) } else { (small, still) };
            let flags = shown.registers.rflags;
            failures.push(format!("program {programs}: {found:#?}\n    flags {flags:#x}\n{}", shown.listing()));
        }
    }
    println!("{programs} programs, {insns} instructions");
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn random_programs_agree() {
    programs_agree(&program::forms(), 80_000);
}

/// The x87 unit's state stays in the host's from instruction to instruction, and leaves it in between: for helpers, for MMX
/// and when an exception is unmasked.
#[test]
fn random_x87_programs_agree() {
    let mut codes = program::forms();
    let x87 = |code: &Code| {
        code.cpuid_features()
            .iter()
            .any(|f| matches!(f, CpuidFeature::FPU | CpuidFeature::FPU287 | CpuidFeature::FPU387 | CpuidFeature::MMX))
    };
    codes.retain(|code| {
        x87(code)
            || matches!(
                code.mnemonic(),
                Mnemonic::Fxsave | Mnemonic::Fxrstor | Mnemonic::Div | Mnemonic::Jbe | Mnemonic::Jp | Mnemonic::Pause
            )
    });
    assert!(codes.len() > 200, "{} forms", codes.len());
    programs_agree(&codes, 40_000);
}
