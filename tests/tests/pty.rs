//! A user at a terminal: the guest's shell, its full-screen programs, the keys that are mimus's own, and a terminal that is
//! afterwards as it was.

#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use mimus_tests::files::CLOUD;
use mimus_tests::{Hangup, Session, progress};
use rustix::process::Signal;
use rustix::termios::{LocalModes, SpecialCodeIndex, Termios};

/// How long a session may take in all.
const LIMIT: Duration = Duration::from_secs(120);

/// The shell in /root.
const PROMPT: &str = "/root # ";

const CTRL_A: &str = "\x01";
const CTRL_C: &str = "\x03";
const ESCAPE: &str = "\x1b";

/// A running guest, and the terminal's mode before it was started.
struct Shell {
    session: Session,
    before: String,
    commands: u32,
}

/// A terminal's mode to compare.
fn text(mode: &Termios) -> String {
    let codes = [SpecialCodeIndex::VMIN, SpecialCodeIndex::VTIME, SpecialCodeIndex::VINTR];
    format!(
        "{:?} {:?} {:?} {:?} {:?}",
        mode.input_modes,
        mode.output_modes,
        mode.control_modes,
        mode.local_modes,
        codes.map(|code| mode.special_codes[code])
    )
}

impl Shell {
    /// Starts mimus, with a terminal that is already raw once its guest prints.
    fn start(name: &str, options: &[&str]) -> Shell {
        Shell::start_with(name, options, Hangup::Ends)
    }

    fn start_with(name: &str, options: &[&str], hangup: Hangup) -> Shell {
        let mut args = CLOUD.args("quiet");
        args.extend(options.iter().map(|option| (*option).to_owned()));
        let (session, before) = Session::on_terminal(name, &args, hangup, LIMIT);
        Shell { session, before: text(&before), commands: 0 }
    }

    /// Waits for the shell's first prompt.
    fn prompt(&mut self) {
        self.session.expect("BusyBox shell on ttyS0");
        self.session.expect(PROMPT);
        let raw = self.session.mode().local_modes;
        assert!(!raw.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG), "{raw:?}");
    }

    /// Runs a command, and returns what it printed.
    fn run(&mut self, command: &str) -> String {
        self.commands += 1;
        let number = self.commands;
        // What the terminal echoes is not what the shell prints.
        self.session.send(&format!("{command}; echo done-$(({number} + 1000))\r"));
        self.session.expect("+ 1000))\r");
        let output = self.session.until(&format!("done-{}", number + 1000));
        self.session.expect(PROMPT);
        output.replace('\r', "").trim_start_matches('\n').to_owned()
    }

    /// Waits until mimus has taken the terminal.
    fn becomes_raw(&mut self) {
        let from = Instant::now();
        while text(&self.session.mode()) == self.before {
            assert!(from.elapsed() < LIMIT, "the terminal does not become raw");
            self.session.watch(Duration::from_millis(20));
        }
    }

    /// Waits for the end and checks that the terminal is as it was.
    fn ends(self, code: Option<i32>) -> String {
        let (ended, mode) = self.session.finish_terminal();
        assert_eq!(ended.code, code, "{ended:?}");
        assert_eq!(text(&mode), self.before, "the terminal's mode is not restored");
        ended.text
    }
}

#[test]
fn shell_editor_and_keys() {
    let mut shell = Shell::start("shell", &["-no-reboot"]);
    shell.prompt();
    progress("shell: prompt");
    assert_eq!(shell.run("stty rows 24 cols 80; echo $((6 * 7))"), "42\n");

    shell.session.send("vi note\r");
    // The last line of the screen names the file.
    shell.session.expect("note");
    shell.session.send("isecond line");
    shell.session.expect("second line");
    shell.session.send(ESCAPE);
    shell.session.watch(Duration::from_millis(500));
    shell.session.send("Ofirst line");
    shell.session.expect("first line");
    shell.session.send(ESCAPE);
    shell.session.watch(Duration::from_millis(500));
    shell.session.send(":wq\r");
    shell.session.expect(PROMPT);
    assert_eq!(shell.run("cat note"), "first line\nsecond line\n");
    shell.session.send("vi note\r");
    shell.session.expect("second line");
    // Deletes a word of the second line and leaves.
    shell.session.send("jdwZZ");
    shell.session.expect(PROMPT);
    assert_eq!(shell.run("cat note"), "first line\nline\n");
    progress("shell: vi edited a file");

    shell.session.send("top\r");
    shell.session.expect("Load average:");
    shell.session.expect("PID");
    shell.session.expect("COMMAND");
    shell.session.watch(Duration::from_millis(500));
    shell.session.send("q");
    shell.session.expect(PROMPT);
    progress("shell: top came and went");

    shell.session.send("sleep 100\r");
    shell.session.expect("sleep 100\r");
    shell.session.watch(Duration::from_secs(1));
    let typed = Instant::now();
    shell.session.send(CTRL_C);
    let back = shell.session.expect(PROMPT);
    assert!(back - typed < Duration::from_secs(90), "sleep went on for {:?}", back - typed);
    assert_eq!(shell.run("echo $?"), "130\n");

    // Ctrl-A twice is one for the guest, where it goes to the beginning of the line.
    shell.session.send(&format!("rest{CTRL_A}{CTRL_A}echo the \r"));
    shell.session.expect("\nthe rest\r");
    shell.session.expect(PROMPT);
    shell.session.send(&format!("{CTRL_A}h"));
    shell.session.expect("Ctrl-A x       quit mimus");
    assert_eq!(shell.run("echo still here"), "still here\n");
    progress("shell: keys");

    shell.session.send("poweroff -f\r");
    shell.ends(Some(0));
}

#[test]
fn reboot_ends_the_run_when_asked_to() {
    let mut shell = Shell::start("reboot, -no-reboot", &["-no-reboot"]);
    shell.prompt();
    shell.session.send("reboot -f\r");
    let text = shell.ends(Some(0));
    assert_eq!(text.matches("BusyBox shell on ttyS0").count(), 1, "it booted again");
    progress("reboot: ended");
}

#[test]
fn reboot_boots_again_and_ctrl_a_x_quits() {
    let mut shell = Shell::start("reboot", &[]);
    shell.prompt();
    assert_eq!(shell.run("touch /root/trace; ls /root"), "trace\n");
    shell.session.send("reboot -f\r");
    shell.prompt();
    progress("reboot: booted again");
    assert_eq!(shell.run("ls /root"), "");
    shell.session.send(&format!("{CTRL_A}x"));
    shell.ends(Some(0));
}

#[test]
fn quits_while_the_guest_boots_and_dies_by_signals() {
    let mut shell = Shell::start("quit", &[]);
    shell.becomes_raw();
    shell.session.send(&format!("{CTRL_A}x"));
    let text = shell.ends(Some(0));
    assert!(!text.contains("BusyBox shell on ttyS0"), "it booted to the end");
    for signal in [Signal::TERM, Signal::HUP] {
        let mut shell = Shell::start("signal", &[]);
        // The terminal is raw before the machine runs, and until then a signal ends the process as it ends any other.
        shell.prompt();
        shell.session.signal(signal);
        shell.ends(Some(0));
    }
}

#[test]
fn survives_a_hangup_under_nohup() {
    let mut shell = Shell::start_with("nohup", &[], Hangup::Ignored);
    shell.session.watch(Duration::from_millis(500));
    shell.session.signal(Signal::HUP);
    shell.prompt();
    shell.session.signal(Signal::TERM);
    shell.ends(Some(0));
}
