//! The internet checksum (RFC 1071).

/// The sum of `bytes` as words of 16 bits, the high byte first, in ones' complement.
pub(super) fn sum(bytes: &[u8]) -> u16 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut sum: u64 = words.iter().map(|word| u64::from(u32::from_be_bytes(*word))).sum();
    for (index, byte) in rest.iter().enumerate() {
        sum += u64::from(*byte) << (24 - 8 * index);
    }
    // Words of 32 bits and of 16 have the same sum when it is folded.
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Adds two sums.
pub(super) fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u16::from(carry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums() {
        // The example of RFC 1071, 3.
        assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
        assert_eq!((sum(&[]), sum(&[1]), sum(&[1, 2, 3])), (0, 0x100, 0x402));
        assert_eq!(sum(&[0xff; 0x1_0000]), 0xffff);
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(add(sum(&bytes[..100]), sum(&bytes[100..])), sum(&bytes));
    }
}
