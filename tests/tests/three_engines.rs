//! The interpreter, compiled code and the host's own processor agree on every instruction form that is lifted.

#![forbid(unsafe_code)]

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
#[test]
#[ignore = "not run on this host: the oracle is an x86-64 processor under Linux"]
fn interpreter_agrees_with_the_host() {}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[test]
fn interpreter_agrees_with_the_host() {
    host::run();
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod host {
    use iced_x86::{Code, Mnemonic};
    use mimus_tests::engines::case::{Case, case};
    use mimus_tests::engines::compare::{data_differences, differences, report};
    use mimus_tests::engines::form;
    use mimus_tests::engines::guest::{Guest, Passes};
    use mimus_tests::engines::host::Host;
    use mimus_tests::engines::layout::DATA_LEN;
    use mimus_tests::rng::Rng;

    /// Cases of each form.
    const CASES: u32 = 400;

    struct Rig {
        host: Host,
        guest: Guest,
        data: Vec<u8>,
    }

    /// What came of one form.
    #[derive(Default)]
    struct Tally {
        run: u32,
        failed: u32,
        first: Option<String>,
    }

    impl Rig {
        fn fill(&mut self, rng: &mut Rng) {
            for chunk in self.host.data().chunks_mut(8) {
                chunk.copy_from_slice(&rng.next_u64().to_le_bytes()[..chunk.len()]);
            }
        }

        fn compare(&mut self, case: &Case, passes: Passes) -> Option<Vec<String>> {
            if form::undefined_result(&case.insn, &case.registers).is_some() {
                return None;
            }
            for (at, bytes) in &case.patches {
                self.host.data()[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            self.guest.write_data(self.host.data());
            let want = self.host.step(&case.code, &case.registers).ok()?;
            let got = match self.guest.step(&case.code, &case.registers, passes) {
                Ok(got) => got,
                Err(problem) => return Some(vec![problem]),
            };
            let mut found = differences(Some((&case.insn, &case.registers)), &want, &got);
            self.guest.read_data(&mut self.data);
            if let (Mnemonic::Fxsave | Mnemonic::Fxsave64, Some((at, _))) = (case.insn.mnemonic(), case.patches.first()) {
                // MXCSR_MASK is the processor's own.
                let mask = (at + 28).min(DATA_LEN)..(at + 32).min(DATA_LEN);
                self.data[mask.clone()].copy_from_slice(&self.host.data()[mask]);
            }
            if want.trap.is_some() && form::several_steps(case.insn.mnemonic()) {
                return Some(found);
            }
            found.extend(data_differences(self.host.data(), &self.data));
            Some(found)
        }

        fn form(&mut self, code: Code, mut rng: Rng) -> Tally {
            let mut tally = Tally::default();
            self.fill(&mut rng);
            for attempt in 0..4 * CASES {
                let Some(case) = case(&mut rng, code) else { continue };
                let passes = if attempt % 2 == 0 { Passes::None } else { Passes::All };
                let Some(found) = self.compare(&case, passes) else { continue };
                tally.run += 1;
                if !found.is_empty() {
                    tally.failed += 1;
                    tally.first.get_or_insert_with(|| report(&case, &found));
                }
                if tally.run == CASES {
                    break;
                }
            }
            tally
        }
    }

    pub fn run() {
        let seed = 1;
        let mut rig = Rig { host: Host::new().expect("the host"), guest: Guest::new(), data: vec![0; DATA_LEN] };
        let mut failures = Vec::new();
        let (mut forms, mut cases) = (0, 0u64);
        for code in form::compared() {
            let tally = rig.form(code, Rng::new(seed).part(code as u64));
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
}
