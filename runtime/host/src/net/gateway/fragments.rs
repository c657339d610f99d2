//! Packets of the guest's that come in fragments (RFC 791, 3.2).

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use smoltcp::wire::{IpProtocol, Ipv4Packet};

/// Packets that are incomplete, at most; the oldest makes room.
const PACKETS: usize = 16;
/// Pieces of one that do not touch, at most.
const HOLES: usize = 64;
/// How long the rest is waited for.
const LIFETIME: Duration = Duration::from_secs(30);
/// The longest packet with its header, in bytes.
const LONGEST: usize = 0xffff;
/// An IPv4 header without options, in bytes.
const HEADER: usize = 20;

/// What the fragments of a packet have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    ends: (Ipv4Addr, Ipv4Addr),
    protocol: IpProtocol,
    ident: u16,
}

/// A packet of which there are parts.
#[derive(Debug)]
struct Partial {
    key: Key,
    begun: Instant,
    payload: Vec<u8>,
    /// What of the payload is there: begins and ends, in order, that do not touch.
    there: Vec<(usize, usize)>,
    /// Bytes of the payload, once the last fragment is there.
    len: Option<usize>,
}

impl Partial {
    /// Puts a piece in its place. `None` when it contradicts what is there: whoever sends that has nothing good in mind.
    fn add(&mut self, at: usize, piece: &[u8], more: bool) -> Option<()> {
        let end = at + piece.len();
        let wrong = piece.is_empty() || more && !piece.len().is_multiple_of(8) || end > LONGEST - HEADER;
        let beyond = self.len.is_some_and(|len| end > len || !more && end != len);
        let before = self.there.partition_point(|&(_, there)| there <= at);
        let overlaps = self.there.get(before).is_some_and(|&(begin, _)| begin < end);
        if wrong || beyond || overlaps || !more && self.payload.len() > end {
            return None;
        }
        if !more {
            self.len = Some(end);
        }
        self.payload.resize(self.payload.len().max(end), 0);
        self.payload.get_mut(at..end)?.copy_from_slice(piece);
        self.there.insert(before, (at, end));
        self.there.dedup_by(|next, last| {
            let touches = last.1 == next.0;
            if touches {
                last.1 = next.1;
            }
            touches
        });
        (self.there.len() <= HOLES).then_some(())
    }

    /// Whether nothing is missing.
    fn is_whole(&self) -> bool {
        self.len.is_some_and(|len| self.there == [(0, len)])
    }
}

/// The packets that are incomplete.
#[derive(Debug, Default)]
pub(super) struct Fragments(Vec<Partial>);

impl Fragments {
    /// Takes a fragment; the packet's payload if that was the last that was missing.
    pub(super) fn add(&mut self, packet: &Ipv4Packet<&[u8]>, now: Instant) -> Option<Vec<u8>> {
        self.0.retain(|partial| partial.begun + LIFETIME > now);
        let key =
            Key { ends: (packet.src_addr(), packet.dst_addr()), protocol: packet.next_header(), ident: packet.ident() };
        let index = self.0.iter().position(|partial| partial.key == key).unwrap_or_else(|| {
            if self.0.len() == PACKETS {
                self.0.remove(0);
            }
            self.0.push(Partial { key, begun: now, payload: Vec::new(), there: Vec::new(), len: None });
            self.0.len() - 1
        });
        let partial = self.0.get_mut(index)?;
        let added = partial.add(packet.frag_offset().into(), packet.payload(), packet.more_frags());
        if added.is_some() && !partial.is_whole() {
            return None;
        }
        let whole = self.0.remove(index);
        added.map(|()| whole.payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fragment of packet `ident`.
    fn fragment(ident: u16, at: usize, len: usize, more: bool) -> Vec<u8> {
        let mut bytes = vec![at as u8; HEADER + len];
        let mut packet = Ipv4Packet::new_unchecked(&mut bytes);
        packet.set_version(4);
        packet.set_header_len(HEADER as u8);
        packet.set_total_len((HEADER + len) as u16);
        packet.set_ident(ident);
        packet.clear_flags();
        packet.set_more_frags(more);
        packet.set_frag_offset(at as u16);
        packet.set_next_header(IpProtocol::Udp);
        packet.set_src_addr(Ipv4Addr::new(10, 0, 2, 15));
        packet.set_dst_addr(Ipv4Addr::new(10, 0, 2, 2));
        bytes
    }

    fn add(fragments: &mut Fragments, bytes: &[u8], now: Instant) -> Option<Vec<u8>> {
        fragments.add(&Ipv4Packet::new_unchecked(bytes), now)
    }

    #[test]
    fn they_are_put_together_in_any_order() {
        let (mut all, now) = (Fragments::default(), Instant::now());
        let parts = [fragment(1, 16, 5, false), fragment(1, 0, 8, true), fragment(1, 8, 8, true)];
        let expected = [vec![0; 8], vec![8; 8], vec![16; 5]].concat();
        for order in [[0, 1, 2], [1, 2, 0], [2, 0, 1]] {
            assert_eq!(add(&mut all, &parts[order[0]], now), None);
            assert_eq!(add(&mut all, &fragment(2, 0, 8, true), now), None, "another packet");
            assert_eq!(add(&mut all, &parts[order[1]], now), None);
            assert_eq!(add(&mut all, &parts[order[2]], now), Some(expected.clone()));
            all.0.clear();
        }
    }

    #[test]
    fn what_contradicts_itself_is_dropped() {
        let now = Instant::now();
        for (first, second) in [
            (fragment(1, 0, 16, true), fragment(1, 8, 16, true)),
            (fragment(1, 8, 16, true), fragment(1, 0, 16, true)),
            (fragment(1, 0, 16, true), fragment(1, 0, 16, true)),
            (fragment(1, 16, 8, false), fragment(1, 24, 8, true)),
            (fragment(1, 24, 8, true), fragment(1, 8, 8, false)),
            (fragment(1, 0, 8, true), fragment(1, 8, 0, false)),
            (fragment(1, 0, 8, true), fragment(1, 8, 9, true)),
            (fragment(1, 0, 8, true), fragment(1, 65528, 8, false)),
        ] {
            let mut all = Fragments::default();
            assert_eq!((add(&mut all, &first, now), add(&mut all, &second, now)), (None, None));
            assert!(all.0.is_empty());
        }
    }

    #[test]
    fn what_waits_is_bounded_in_number_and_time() {
        let (mut all, now) = (Fragments::default(), Instant::now());
        (0..1000).for_each(|ident| drop(add(&mut all, &fragment(ident, 8, 8, true), now)));
        assert_eq!((all.0.len(), all.0[0].key.ident), (PACKETS, 1000 - PACKETS as u16));
        assert_eq!(add(&mut all, &fragment(999, 0, 8, true), now + LIFETIME), None);
        assert_eq!(all.0.len(), 1, "the others are too old");
        (0..100).for_each(|at| drop(add(&mut all, &fragment(5, 16 * at, 8, true), now)));
        let piece = all.0.iter().find(|partial| partial.key.ident == 5).unwrap();
        assert!(piece.there.len() <= HOLES);
    }
}
