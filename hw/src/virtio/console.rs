//! The console device (VIRTIO 1.2, 5.3): a console, or ports with numbers and names that a control queue tells of.

use std::collections::VecDeque;

use mimus_softmmu::Dma;
use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;

use super::Device;
use super::queue::{Broken, VirtQueue};
use crate::fabric::CharSink;

/// The features (5.3.3).
pub(super) const MULTIPORT: u64 = 1 << 1;
/// The queues that there always are: those of port 0, each followed by the one for output; then the control queues.
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
pub(super) const CONTROL_RECEIVE: usize = 2;
const CONTROL_TRANSMIT: usize = 3;
const QUEUE_SIZE: u16 = 128;
const CONTROL_SIZE: u16 = 32;
/// Ports have numbers below this.
pub const MAX_PORTS: u32 = 31;
/// The queues of one console, and of ports.
const ONE: [u16; 2] = [QUEUE_SIZE; 2];
const MANY: [u16; 64] = {
    let mut sizes = [QUEUE_SIZE; 2 * (MAX_PORTS as usize + 1)];
    sizes[CONTROL_RECEIVE] = CONTROL_SIZE;
    sizes[CONTROL_TRANSMIT] = CONTROL_SIZE;
    sizes
};
/// Bytes that are copied at once.
const PIECE: u64 = 4096;
/// The most bytes that one notification prints.
const MAX_OUTPUT: u64 = 1 << 20;
/// Control messages that wait for buffers; a driver that asks for more loses them.
const MAX_PENDING: usize = 256;

/// Events of control messages (5.3.6.2).
const DEVICE_READY: u16 = 0;
const DEVICE_ADD: u16 = 1;
const PORT_READY: u16 = 3;
const CONSOLE_PORT: u16 = 4;
const PORT_OPEN: u16 = 6;
const PORT_NAME: u16 = 7;
/// Bytes of a message without a name.
const MESSAGE: usize = 8;

/// A port.
pub struct ConsolePort {
    /// Its number, below [`MAX_PORTS`]. Port 0 is the console of drivers that know of no others.
    pub number: u32,
    /// What the guest finds it by; empty for nothing.
    pub name: String,
    /// The guest is to use it as a console.
    pub console: bool,
    /// Where its output goes.
    pub sink: Box<dyn CharSink>,
}

/// A control message.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Message {
    port: u32,
    event: u16,
    value: u16,
}

impl Message {
    fn parse(bytes: [u8; MESSAGE]) -> Message {
        let [a, b, c, d, e, f, g, h] = bytes;
        let word = |low, high| u16::from_le_bytes([low, high]);
        Message { port: u32::from_le_bytes([a, b, c, d]), event: word(e, f), value: word(g, h) }
    }

    fn bytes(self) -> Vec<u8> {
        let words = [self.event, self.value].into_iter().flat_map(u16::to_le_bytes);
        self.port.to_le_bytes().into_iter().chain(words).collect()
    }
}

/// What the driver has done with the ports.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct ConsoleData {
    /// Those that somebody in the guest has opened, bit by number.
    open: u32,
    /// Those that it knows of.
    ready: u32,
    /// What the driver is to be told.
    pending: VecDeque<Message>,
}

/// A console, or ports.
pub(super) struct Console {
    ports: Vec<ConsolePort>,
    many: bool,
    /// Ports at whose other end nobody is, bit by number.
    left: u32,
    state: ConsoleData,
}

/// The queue of buffers for a port's input; its output is in the next one.
fn receive_queue(port: u32) -> usize {
    if port == 0 { RECEIVE } else { 2 + 2 * port as usize }
}

impl Console {
    /// One console, and nothing else.
    pub(super) fn new(sink: Box<dyn CharSink>) -> Self {
        let port = ConsolePort { number: 0, name: String::new(), console: true, sink };
        Console { ports: vec![port], many: false, left: 0, state: ConsoleData::default() }
    }

    /// Ports with a control queue.
    pub(super) fn of_ports(ports: Vec<ConsolePort>) -> Self {
        Console { ports, many: true, left: 0, state: ConsoleData::default() }
    }

    /// Gives port `port` input for the driver's buffers; how many bytes they took. A driver that has accepted `features` with
    /// several ports takes none before somebody has opened it.
    pub(super) fn receive(
        &mut self,
        queues: &mut [VirtQueue],
        mem: &Dma,
        features: u64,
        (port, mut bytes): (u32, &[u8]),
    ) -> Result<usize, Broken> {
        let all = bytes.len();
        let closed = features & MULTIPORT != 0 && self.state.open >> (port & 31) & 1 == 0;
        let Some(queue) = queues.get_mut(receive_queue(port)).filter(|_| !closed) else { return Ok(0) };
        // Buffers without room would come back for ever.
        for _ in 0..QUEUE_SIZE {
            if bytes.is_empty() {
                break;
            }
            let Some(chain) = queue.pop(mem)? else {
                // The driver says when there are buffers again.
                if queue.rearm(mem)? {
                    continue;
                }
                break;
            };
            let written = chain.writable.write(mem, 0, bytes);
            queue.push(mem, chain.head, written as u32)?;
            bytes = bytes.get(written..).unwrap_or_default();
        }
        Ok(all - bytes.len())
    }

    /// Somebody is at the other end of port `port`, or nobody is any more; whether there is something to tell the driver. A console is
    /// always attended: its output does not wait for anybody.
    pub(super) fn attend(&mut self, port: u32, here: bool) -> bool {
        let known = self.many && self.ports.iter().any(|known| known.number == port && !known.console);
        let bit = if known { 1 << (port & 31) } else { 0 };
        if bit == 0 || here == (self.left & bit == 0) {
            return false;
        }
        self.left ^= bit;
        let told = self.state.ready & bit != 0;
        if told {
            self.tell(port, PORT_OPEN, here.into());
        }
        told
    }

    pub(super) fn save(&self) -> ConsoleData {
        self.state.clone()
    }

    pub(super) fn fits(&self, data: &ConsoleData) -> bool {
        data.pending.len() <= MAX_PENDING
    }

    pub(super) fn restore(&mut self, data: ConsoleData) {
        self.state = data;
    }

    /// Prints what is in queue `index`, an output queue; whether there is more.
    fn print(&mut self, index: usize, queues: &mut [VirtQueue], mem: &Dma) -> Result<bool, Broken> {
        let mut port = self.ports.iter_mut().find(|port| receive_queue(port.number) + 1 == index);
        let Some(queue) = queues.get_mut(index) else { return Ok(false) };
        let mut printed = 0;
        for _ in 0..QUEUE_SIZE {
            let Some(chain) = queue.pop(mem)? else {
                if queue.rearm(mem)? {
                    continue;
                }
                return Ok(false);
            };
            let len = chain.readable.len();
            let mut at = 0;
            while let Some(port) = port.as_mut().filter(|_| at < len.min(MAX_OUTPUT)) {
                let mut piece = vec![0; (len - at).min(PIECE) as usize];
                let read = chain.readable.read(mem, at, &mut piece);
                port.sink.write(piece.get(..read).unwrap_or_default());
                at += PIECE;
            }
            printed += len;
            queue.push(mem, chain.head, 0)?;
            if printed >= MAX_OUTPUT {
                break;
            }
        }
        Ok(true)
    }

    /// Reads what the driver says about ports; whether there is more.
    fn listen(&mut self, queues: &mut [VirtQueue], mem: &Dma) -> Result<bool, Broken> {
        let Some(queue) = queues.get_mut(CONTROL_TRANSMIT) else { return Ok(false) };
        for _ in 0..CONTROL_SIZE {
            let Some(chain) = queue.pop(mem)? else {
                if queue.rearm(mem)? {
                    continue;
                }
                return Ok(false);
            };
            let mut bytes = [0; MESSAGE];
            let whole = chain.readable.read(mem, 0, &mut bytes) == MESSAGE;
            queue.push(mem, chain.head, 0)?;
            if whole {
                self.hear(Message::parse(bytes));
            }
        }
        Ok(true)
    }

    fn hear(&mut self, Message { port, event, value }: Message) {
        match event {
            DEVICE_READY if value == 1 => {
                let numbers: Vec<u32> = self.ports.iter().map(|port| port.number).collect();
                numbers.into_iter().for_each(|port| self.tell(port, DEVICE_ADD, 1));
            }
            PORT_READY if value == 1 => {
                let found = self.ports.iter().find(|known| known.number == port);
                let Some((console, named)) = found.map(|found| (found.console, !found.name.is_empty())) else { return };
                let bit = 1 << (port & 31);
                self.state.ready |= bit;
                // That somebody is at the host's side comes last.
                let events = [(CONSOLE_PORT, console), (PORT_NAME, named), (PORT_OPEN, self.left & bit == 0)];
                events.iter().filter(|(_, wanted)| *wanted).for_each(|(event, _)| self.tell(port, *event, 1));
            }
            PORT_OPEN if port < MAX_PORTS => {
                let bit = 1 << port;
                self.state.open = if value != 0 { self.state.open | bit } else { self.state.open & !bit };
            }
            _ => tracing::debug!(port, event, value, "virtio console: message ignored"),
        }
    }

    fn tell(&mut self, port: u32, event: u16, value: u16) {
        if self.state.pending.len() < MAX_PENDING {
            self.state.pending.push_back(Message { port, event, value });
        }
    }

    /// Tells the driver what is pending, as far as it has buffers.
    fn speak(&mut self, queues: &mut [VirtQueue], mem: &Dma) -> Result<(), Broken> {
        let Some(queue) = queues.get_mut(CONTROL_RECEIVE) else { return Ok(()) };
        while let Some(message) = self.state.pending.front() {
            let Some(chain) = queue.pop(mem)? else {
                if queue.rearm(mem)? {
                    continue;
                }
                break;
            };
            let mut bytes = message.bytes();
            if message.event == PORT_NAME {
                let named = self.ports.iter().find(|port| port.number == message.port);
                bytes.extend(named.into_iter().flat_map(|port| port.name.bytes()).chain([0]));
            }
            let written = chain.writable.write(mem, 0, &bytes);
            queue.push(mem, chain.head, written as u32)?;
            self.state.pending.pop_front();
        }
        Ok(())
    }
}

impl Device for Console {
    fn id(&self) -> u32 {
        VIRTIO_ID_CONSOLE
    }

    fn features(&self) -> u64 {
        if self.many { MULTIPORT } else { 0 }
    }

    fn queue_sizes(&self) -> &'static [u16] {
        if self.many { &MANY } else { &ONE }
    }

    /// Columns and rows, which are not offered, the number of ports, and an emergency console, which is not offered.
    fn config(&self) -> Vec<u8> {
        let ports = if self.many { MAX_PORTS } else { 0 };
        [0, ports, 0].into_iter().flat_map(u32::to_le_bytes).collect()
    }

    fn reset(&mut self) {
        self.state = ConsoleData::default();
    }

    fn process(&mut self, index: usize, queues: &mut [VirtQueue], mem: &Dma) -> Result<bool, Broken> {
        match index {
            CONTROL_RECEIVE => {
                self.speak(queues, mem)?;
                Ok(false)
            }
            CONTROL_TRANSMIT => {
                let more = self.listen(queues, mem)?;
                self.speak(queues, mem)?;
                Ok(more)
            }
            // The buffers wait for input.
            _ if index & 1 != TRANSMIT => Ok(false),
            _ => self.print(index, queues, mem),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::virtio::Virtio;
    use crate::virtio::testing::{Driver, setup};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl CharSink for Sink {
        fn write(&mut self, bytes: &[u8]) {
            self.0.lock().unwrap().extend_from_slice(bytes);
        }
    }

    #[test]
    fn output_in_order_and_input_into_buffers() {
        let (ram, mem) = setup();
        let sink = Sink::default();
        let mut device = Virtio::console(mem, Box::new(sink.clone()));
        let mut driver = Driver::start(&mut device, &ram);
        assert_eq!(device.console_receive(0, b"early"), 0, "no buffers yet");
        driver.offer(1, &[b"hello, ", b"world"], &[]);
        driver.offer(1, &[b"!"], &[]);
        device.notify(1);
        assert_eq!(*sink.0.lock().unwrap(), b"hello, world!");
        assert_eq!(driver.used(1).len(), 2);
        let first = driver.offer(0, &[], &[3]);
        let second = driver.offer(0, &[], &[8]);
        device.notify(0);
        assert_eq!(driver.used(0), []);
        assert_eq!(device.console_receive(0, b"abcde"), 5);
        assert_eq!(driver.used(0), [(first.head, 3), (second.head, 2)]);
        assert_eq!(driver.bytes(&first.writable), b"abc");
        assert_eq!(driver.bytes(&second.writable)[..2], *b"de");
        assert_eq!(device.isr(), 1);
        driver.offer(0, &[], &[2]);
        assert_eq!(device.console_receive(0, b"xyz"), 2, "the rest stays with the host");
    }

    /// A control message of the driver's.
    fn message(port: u32, event: u16, value: u16) -> Vec<u8> {
        Message { port, event, value }.bytes()
    }

    #[test]
    fn ports_with_names_are_told_of_and_opened() {
        let (ram, mem) = setup();
        let sinks: [Sink; 2] = Default::default();
        let [console, agent] = sinks.clone();
        let ports = vec![
            ConsolePort { number: 0, name: String::new(), console: true, sink: Box::new(console) },
            ConsolePort { number: 2, name: "org.agent.0".into(), console: false, sink: Box::new(agent) },
        ];
        let mut device = Virtio::ports(mem, ports);
        let mut driver = Driver::start(&mut device, &ram);
        let mut config = [0; 4];
        device.read_config(4, &mut config);
        assert_eq!((u32::from_le_bytes(config), device.features() & MULTIPORT != 0), (31, true));
        let heard = |device: &mut Virtio, driver: &mut Driver, said: &[u8], count: usize| {
            driver.offer(3, &[said], &[]);
            device.notify(3);
            let buffers: Vec<_> = (0..count).map(|_| driver.offer(2, &[], &[40])).collect();
            device.notify(2);
            let used = driver.used(2);
            assert_eq!(used.len(), count);
            let bytes = buffers
                .iter()
                .zip(used)
                .map(|(buffer, (_, len))| driver.bytes(&buffer.writable)[..len as usize].to_vec());
            bytes.collect::<Vec<_>>()
        };
        let added = heard(&mut device, &mut driver, &message(0, DEVICE_READY, 1), 2);
        assert_eq!(added, [message(0, DEVICE_ADD, 1), message(2, DEVICE_ADD, 1)]);
        let console = heard(&mut device, &mut driver, &message(0, PORT_READY, 1), 2);
        assert_eq!(console, [message(0, CONSOLE_PORT, 1), message(0, PORT_OPEN, 1)]);
        let agent = heard(&mut device, &mut driver, &message(2, PORT_READY, 1), 2);
        let name = [&message(2, PORT_NAME, 1)[..], b"org.agent.0\0"].concat();
        assert_eq!(agent, [name, message(2, PORT_OPEN, 1)]);
        assert_eq!(heard(&mut device, &mut driver, &message(9, PORT_READY, 1), 0).len(), 0, "there is no such port");
        // Output of either, and input once it is open.
        driver.offer(1, &[b"to the console"], &[]);
        driver.offer(7, &[b"to the agent"], &[]);
        [1, 7].into_iter().for_each(|queue| device.notify(queue));
        assert_eq!(*sinks[0].0.lock().unwrap(), b"to the console");
        assert_eq!(*sinks[1].0.lock().unwrap(), b"to the agent");
        let buffer = driver.offer(6, &[], &[8]);
        assert_eq!(device.console_receive(2, b"early"), 0, "nobody has opened it");
        heard(&mut device, &mut driver, &message(2, PORT_OPEN, 1), 0);
        assert_eq!(device.console_receive(2, b"late"), 4);
        assert_eq!(
            (driver.used(6), driver.bytes(&buffer.writable)[..4].to_vec()),
            (vec![(buffer.head, 4)], b"late".to_vec())
        );
        let data = device.save();
        assert!(device.fits(&data));
        device.restore(data);
        driver.offer(6, &[], &[8]);
        assert_eq!(device.console_receive(2, b"x"), 1, "it is open still");
        assert_eq!(device.console_receive(40, b"x"), 0, "there is no such port");
    }

    #[test]
    fn a_port_tells_whether_somebody_is_at_its_other_end() {
        let (ram, mem) = setup();
        let port =
            |number, console| ConsolePort { number, name: String::new(), console, sink: Box::new(Sink::default()) };
        let mut device = Virtio::ports(mem, vec![port(0, true), port(1, false)]);
        [0, 1, 5].into_iter().for_each(|port| device.console_attend(port, false));
        let mut driver = Driver::start(&mut device, &ram);
        let heard = |device: &mut Virtio, driver: &mut Driver| {
            let buffers: Vec<_> = (0..8).map(|_| driver.offer(2, &[], &[40])).collect();
            device.notify(2);
            let of = |head| buffers.iter().find(|buffer| buffer.head == head).unwrap();
            let used = driver.used(2).into_iter();
            used.map(|(head, len)| driver.bytes(&of(head).writable)[..len as usize].to_vec()).collect::<Vec<_>>()
        };
        let say = |device: &mut Virtio, driver: &mut Driver, port, event| {
            driver.offer(3, &[&message(port, event, 1)], &[]);
            device.notify(3);
        };
        say(&mut device, &mut driver, 0, PORT_READY);
        assert_eq!(heard(&mut device, &mut driver), [message(0, CONSOLE_PORT, 1), message(0, PORT_OPEN, 1)]);
        device.console_attend(1, true);
        device.console_attend(1, false);
        say(&mut device, &mut driver, 1, PORT_READY);
        assert!(driver.used(2).is_empty(), "nobody is there yet");
        device.console_attend(1, true);
        device.console_attend(1, true);
        device.console_attend(1, false);
        let used: Vec<_> = driver.used(2).into_iter().map(|(_, len)| len).collect();
        assert_eq!(used, [8, 8], "somebody has come, and gone");
    }

    #[test]
    fn a_driver_that_takes_no_messages_costs_little() {
        let (ram, mem) = setup();
        let port = ConsolePort { number: 1, name: "x".into(), console: false, sink: Box::new(Sink::default()) };
        let mut device = Virtio::ports(mem, vec![port]);
        let mut driver = Driver::start(&mut device, &ram);
        for _ in 0..2 * MAX_PENDING {
            driver.offer(3, &[&message(1, PORT_READY, 1)], &[]);
            device.notify(3);
            driver.used(3);
        }
        assert!(postcard::to_stdvec(&device.save()).unwrap().len() < 16 * MAX_PENDING);
    }
}
