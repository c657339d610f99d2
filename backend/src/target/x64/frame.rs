//! Frames of x64 functions.
//!
//! Cranelift begins every function with `push rbp; mov rbp, rsp` and undoes it before leaving. Along a chain of
//! blocks that is a store and a load of the same stack slot in each, one waiting for the other: 7 cycles a block.
//! A block that uses its frame for nothing is entered behind the prologue, and its epilogues are blanked.
//! It then calls with the stack 8 bytes off, so only functions that expect this ([`realign`]) may be called.

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Register};

/// `push rbp; mov rbp, rsp`.
const PROLOGUE: [u8; 4] = [0x55, 0x48, 0x89, 0xe5];
/// `mov rsp, rbp; pop rbp`.
const EPILOGUE: [u8; 4] = [0x48, 0x89, 0xec, 0x5d];
/// A `nop` as long as the epilogue.
const BLANK: [u8; 4] = [0x0f, 0x1f, 0x40, 0x00];

/// Strips the frame of an x64 function that does not use it; returns where the function is to be entered, in
/// bytes: 0 if it was left as it was. It follows the control flow, so that data is never taken for code.
pub(crate) fn strip(code: &mut [u8]) -> u32 {
    if !code.starts_with(&PROLOGUE) {
        return 0;
    }
    let Some(epilogues) = epilogues(code) else { return 0 };
    for at in epilogues {
        code[at..at + EPILOGUE.len()].copy_from_slice(&BLANK);
    }
    PROLOGUE.len() as u32
}

/// Positions of the epilogues, if the function touches its stack nowhere else.
fn epilogues(code: &[u8]) -> Option<Vec<usize>> {
    let mut seen = vec![false; code.len()];
    let mut todo = vec![PROLOGUE.len()];
    let mut found = Vec::new();
    let mut instruction = Instruction::default();
    while let Some(start) = todo.pop() {
        let mut at = start;
        // Whether the instruction before was an epilogue, so that the function may be left.
        let mut left = false;
        while !*seen.get(at)? {
            seen[at] = true;
            if code[at..].starts_with(&EPILOGUE) {
                found.push(at);
                at += EPILOGUE.len();
                left = true;
                continue;
            }
            let mut decoder = Decoder::with_ip(64, &code[at..], at as u64, DecoderOptions::NONE);
            decoder.decode_out(&mut instruction);
            if instruction.is_invalid() {
                return None;
            }
            match instruction.flow_control() {
                FlowControl::Return | FlowControl::IndirectBranch if left => {
                    if uses_stack(&instruction) {
                        return None;
                    }
                    break;
                }
                FlowControl::UnconditionalBranch if !left => {
                    todo.push(usize::try_from(instruction.near_branch_target()).ok()?);
                    break;
                }
                FlowControl::ConditionalBranch if !left => {
                    todo.push(usize::try_from(instruction.near_branch_target()).ok()?);
                }
                // Only registers and the callee's own frame: what it is given is not on the stack.
                FlowControl::IndirectCall if !left && !uses_stack(&instruction) => {}
                FlowControl::Next if !uses_stack(&instruction) && !instruction.is_stack_instruction() => {}
                _ => return None,
            }
            at = instruction.next_ip() as usize;
        }
    }
    Some(found)
}

/// Whether an operand names the stack or frame pointer.
fn uses_stack(instruction: &Instruction) -> bool {
    let is_stack = |r: Register| matches!(r.full_register(), Register::RSP | Register::RBP);
    (0..instruction.op_count()).any(|i| is_stack(instruction.op_register(i)))
        || is_stack(instruction.memory_base())
        || is_stack(instruction.memory_index())
}

/// Puts code in front of an x64 function that lets it be called with the stack at any multiple of 8, and changes no
/// register but the flags: `push rbp; mov rbp, rsp; and rsp, -16; call function; mov rsp, rbp; pop rbp; ret`.
pub(crate) fn realign(code: &mut Vec<u8>) {
    const LEN: usize = 32;
    let mut front = Vec::with_capacity(LEN + code.len());
    front.extend_from_slice(&PROLOGUE);
    front.extend_from_slice(&[0x48, 0x83, 0xe4, 0xf0]);
    // The displacement counts from the end of the call.
    let distance = LEN - (front.len() + 5);
    front.extend_from_slice(&[0xe8, distance as u8, 0, 0, 0]);
    front.extend_from_slice(&EPILOGUE);
    front.push(0xc3);
    front.resize(LEN, 0xcc);
    front.append(code);
    *code = front;
}
