//! Authentication by a password (RFC 6143, 7.2.2): the client encrypts what the server has thrown with it, by DES. That keeps
//! out who does not know it and protects nothing else.

use std::time::{Duration, Instant};

use des::Des;
use des::cipher::{BlockCipherEncrypt, KeyInit};

/// Bytes of a challenge, and of the answer.
pub const CHALLENGE: usize = 16;

/// More of a password does not count.
const LENGTH: usize = 8;

/// A password as a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Password([u8; LENGTH]);

impl Password {
    /// The key that a password stands for: its bytes with the lowest bit first.
    pub fn new(text: &str) -> Password {
        let mut key = [0; LENGTH];
        key.iter_mut().zip(text.bytes()).for_each(|(to, byte)| *to = byte.reverse_bits());
        Password(key)
    }

    /// The right answer to a challenge.
    pub fn answer(self, challenge: &[u8; CHALLENGE]) -> [u8; CHALLENGE] {
        let cipher = Des::new(&self.0.into());
        let mut answer = *challenge;
        for block in answer.as_chunks_mut::<LENGTH>().0 {
            let mut encrypted = (*block).into();
            cipher.encrypt_block(&mut encrypted);
            *block = encrypted.into();
        }
        answer
    }

    /// Whether `answer` is right, in a time that does not tell how much of it is.
    pub fn accepts(self, challenge: &[u8; CHALLENGE], answer: &[u8; CHALLENGE]) -> bool {
        let differing = self.answer(challenge).iter().zip(answer).fold(0, |bits, (a, b)| bits | (a ^ b));
        std::hint::black_box(differing) == 0
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password")
    }
}

/// How long clients wait before they may try a password: twice as long after each wrong one.
#[derive(Debug, Default)]
pub struct Penalty {
    /// Wrong passwords since the last right one.
    failures: u32,
    until: Option<Instant>,
}

impl Penalty {
    /// The wait after the first wrong password, and the longest.
    const FIRST: Duration = Duration::from_millis(250);
    const LONGEST: Duration = Duration::from_secs(32);

    /// How long a client has to wait at `now` before it may try a password.
    pub fn left(&self, now: Instant) -> Duration {
        self.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// Somebody tried a password at `now`, which may be `right`; whether it counts. Of those who were let try at the same time it does
    /// for the first only, until the wait is over: more connections are no more guesses.
    pub fn tried(&mut self, right: bool, now: Instant) -> bool {
        if right && self.left(now).is_zero() {
            *self = Penalty::default();
            return true;
        }
        let wait = Penalty::FIRST.saturating_mul(1 << self.failures.min(16)).min(Penalty::LONGEST);
        self.failures = self.failures.saturating_add(1);
        self.until = Some(now + wait);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_guesses_waits_longer_each_time() {
        let (mut penalty, now) = (Penalty::default(), Instant::now());
        assert_eq!(penalty.left(now), Duration::ZERO);
        let waits: Vec<u128> = (0..9)
            .map(|_| {
                penalty.tried(false, now);
                penalty.left(now).as_millis()
            })
            .collect();
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 8000, 16000, 32000, 32000]);
        assert_eq!(penalty.left(now + Duration::from_secs(30)), Duration::from_secs(2));
        let later = now + Penalty::LONGEST;
        assert!(penalty.tried(true, later));
        assert_eq!(penalty.left(later), Duration::ZERO);
    }

    #[test]
    fn guesses_at_the_same_time_are_one() {
        let (mut penalty, now) = (Penalty::default(), Instant::now());
        // All of them were asked before any had answered.
        let counted: Vec<bool> = [false, true, false, true].map(|right| penalty.tried(right, now)).into();
        assert_eq!(counted, [false; 4]);
        assert_eq!(penalty.left(now), 8 * Penalty::FIRST);
        assert!(!penalty.tried(true, now + Penalty::FIRST), "still too early");
    }

    #[test]
    fn des_as_its_standard_has_it() {
        // A known answer of the standard's own validation (NIST SP 800-17, table A.1): the key is all ones of odd parity.
        let key = [0x01u8; LENGTH];
        let text: String = key.iter().map(|byte| char::from(byte.reverse_bits())).collect();
        assert!(!text.is_ascii(), "no password that can be typed");
        let mut challenge = [0; CHALLENGE];
        challenge[0] = 0x80;
        challenge[8] = 0x40;
        let answer = Password(key).answer(&challenge);
        assert_eq!(answer[..8], [0x95, 0xf8, 0xa5, 0xe5, 0xdd, 0x31, 0xd9, 0x00]);
        assert_eq!(answer[8..], [0xdd, 0x7f, 0x12, 0x1c, 0xa5, 0x01, 0x56, 0x19]);
    }

    #[test]
    fn eight_characters_count() {
        let challenge = [7; CHALLENGE];
        let password = Password::new("correct horse");
        assert!(password == Password::new("correct ") && password != Password::new("correct"));
        let mut answer = password.answer(&challenge);
        assert!(password.accepts(&challenge, &answer));
        answer[15] ^= 1;
        assert!(!password.accepts(&challenge, &answer));
        assert_eq!(Password::new("a").0[0], 0b1000_0110);
    }
}
