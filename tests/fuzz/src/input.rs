//! The bytes of a fuzz case, and how choices and values are taken from them.

/// Where RAM of the machines here is, relative to its base: little, since it is compared, with a hole for what reaches over an
/// edge, and some of it so high that the tables for it are large enough for the allocator to get them from the host, as zeroed
/// pages that cost nothing.
pub const RAM: [(u64, u64); 2] = [(0, 512 << 10), (36 << 30, 64 << 10)];

/// Bytes that are read from front to end. Past the end there are zeros; [`Input::is_over`] says when.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    rest: &'a [u8],
    over: bool,
}

impl<'a> Input<'a> {
    /// These bytes.
    pub fn new(bytes: &'a [u8]) -> Input<'a> {
        Input { rest: bytes, over: false }
    }

    /// Whether more was asked for than there was.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// 8 bits.
    pub fn u8(&mut self) -> u8 {
        match self.rest.split_first() {
            Some((first, rest)) => {
                self.rest = rest;
                *first
            }
            None => {
                self.over = true;
                0
            }
        }
    }

    /// 16 bits.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    /// 32 bits.
    pub fn u32(&mut self) -> u32 {
        u32::from(self.u16()) | u32::from(self.u16()) << 16
    }

    /// 64 bits.
    pub fn u64(&mut self) -> u64 {
        u64::from(self.u32()) | u64::from(self.u32()) << 32
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: u64) -> u64 {
        let number = match n {
            0..=0x100 => self.u8().into(),
            0x101..=0x1_0000 => self.u16().into(),
            _ => self.u64(),
        };
        number % n
    }

    /// True in one case of `n`.
    pub fn one_in(&mut self, n: u64) -> bool {
        // Zeros, of which there are many at the end, are no.
        self.below(n) == n - 1
    }

    /// One of `items`, which are not none.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u64) as usize]
    }

    /// Up to `most` bytes.
    pub fn bytes(&mut self, most: usize) -> Vec<u8> {
        let count = self.below(most as u64 + 1) as usize;
        (0..count).map(|_| self.u8()).collect()
    }

    /// What an access can be as wide as, in bytes.
    pub fn size(&mut self) -> u8 {
        self.pick(&[1, 1, 2, 4, 4, 4, 8])
    }

    /// A value of a register, where small ones and those with one bit mean most.
    pub fn value(&mut self) -> u64 {
        match self.u8() % 8 {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << self.below(64),
            3..=5 => self.u8().into(),
            6 => self.u16().into(),
            _ => self.u64(),
        }
    }

    /// A physical address of a machine whose RAM begins at `base`: mostly RAM, or just at its edges.
    pub fn address(&mut self, base: u64) -> u64 {
        let (start, size) = self.pick(&RAM);
        match self.u8() % 16 {
            0 => self.u64(),
            1 => u64::MAX - u64::from(self.u8()),
            2 => base.wrapping_sub(self.u8().into()),
            3 | 4 => base + start + size - u64::from(self.u8()),
            5 => base + start + size + u64::from(self.u8()),
            _ => base + start + self.below(size),
        }
    }

    /// How much: little, all the way to the end of 32 bits, or anything.
    pub fn length(&mut self) -> u32 {
        match self.u8() % 8 {
            0 => self.u32(),
            1 => u32::MAX - u32::from(self.u8()),
            2 => self.u16().into(),
            3 => 512 * u32::from(self.u8()),
            _ => self.u8().into(),
        }
    }
}
