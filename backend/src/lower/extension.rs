//! x87 instructions, on hosts that have them: see [`crate::x87`].

use std::mem::offset_of;

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{Block, BlockArg, InstBuilder, Value, types};
use mimus_ir::block::{CallInfo, x87 as call};
use mimus_ir::{Effects, Inst, NONE, Type};
use mimus_softmmu::EnvHeader;

use super::memory::Access;
use super::{Lowering, Slow};
use crate::error::BackendError;
use crate::thunks::x87_signature;
use crate::x87::{EFLAGS, Form, Kind, MASKS, form};

impl Lowering<'_, '_> {
    /// How the host executes what a call with [`Effects::X87`] does; `None` if it leaves that to the helper.
    pub(super) fn x87_form(&self, info: CallInfo) -> Option<Form> {
        let (first, modrm) = call::opcode(info.arg);
        form(first, modrm)
    }

    /// Puts the guest's x87 unit back into env before Rust runs.
    pub(super) fn park_x87(&mut self) {
        let live = self.load_header(types::I64, offset_of!(EnvHeader, x87_live));
        let (park, resume) = (self.cold_block(), self.b.create_block());
        self.b.ins().brif(live, park, &[], resume, &[]);
        self.b.switch_to_block(park);
        self.call_slow(Slow::X87Park, &[self.env]);
        self.b.ins().jump(resume, &[]);
        self.b.switch_to_block(resume);
    }

    /// The instruction itself if the guest's unit is the host's, or can be, and the operand's page is in the TLB. Otherwise the
    /// helper does all of it.
    pub(super) fn x87(&mut self, inst: &Inst, info: CallInfo, form: Form) -> Result<(), BackendError> {
        let address = self.x87_argument(inst.a)?;
        let condition = self.x87_argument(inst.c)?;
        let (slow, join) = (self.cold_block(), self.b.create_block());
        let routines = self.x87_resume(slow);
        let operand = match (form.kind, address, condition) {
            (Kind::Move, _, Some(condition)) => condition,
            (Kind::Memory { bytes, write }, Some(address), _) => self.x87_operand(address, bytes, write, slow),
            (Kind::LoadControl, Some(address), _) => {
                let host = self.x87_operand(address, 2, false, slow);
                self.masked_control_word(host, slow)
            }
            (Kind::Plain | Kind::Flags | Kind::Status, ..) => self.env,
            _ => return Err(self.malformed("an x87 instruction without its operand")),
        };
        let signature = match self.x87_sig {
            Some(signature) => signature,
            None => self.b.import_signature(x87_signature()),
        };
        self.x87_sig = Some(signature);
        let routine = self.b.ins().iadd_imm_s(routines, i64::from(form.routine));
        self.b.ins().call_indirect(signature, routine, &[self.env, operand]);
        self.b.ins().jump(join, &[]);

        self.b.switch_to_block(slow);
        self.store_pc();
        let helper = self.const64(u64::from(info.helper) << 32 | u64::from(info.arg));
        let [address, condition] = [address, condition].map(|v| v.unwrap_or_else(|| self.const64(0)));
        self.call_slow(Slow::X87Step, &[self.env, address, condition, helper]);
        self.leave_on_verdict(join, &[])?;

        self.b.switch_to_block(join);
        if info.effects.contains(Effects::WRITE_ENV) {
            self.region.forget_all();
        }
        let result = match form.kind {
            Kind::Flags => {
                let bits = self.load_header(types::I64, offset_of!(EnvHeader, slow_value));
                self.b.ins().band_imm_s(bits, EFLAGS)
            }
            Kind::Status => self.load_header(types::I64, offset_of!(EnvHeader, slow_value)),
            _ => self.const64(0),
        };
        let result = self.convert(result, Type::I64, inst.ty);
        self.define(inst.ty, result);
        Ok(())
    }

    /// Has the host's unit be the guest's if it is not, and goes to `slow` if it cannot be. The address of the routines.
    fn x87_resume(&mut self, slow: Block) -> Value {
        let live = self.load_header(types::I64, offset_of!(EnvHeader, x87_live));
        let (resume, next) = (self.cold_block(), self.b.create_block());
        let routines = self.b.append_block_param(next, types::I64);
        self.b.ins().brif(live, next, &[BlockArg::Value(live)], resume, &[]);
        self.b.switch_to_block(resume);
        self.call_slow(Slow::X87Resume, &[self.env]);
        let live = self.load_header(types::I64, offset_of!(EnvHeader, x87_live));
        self.b.ins().brif(live, next, &[BlockArg::Value(live)], slow, &[]);
        self.b.switch_to_block(next);
        routines
    }

    fn x87_argument(&mut self, v: mimus_ir::Value) -> Result<Option<Value>, BackendError> {
        if v == NONE { Ok(None) } else { self.int(v, Type::I64).map(Some) }
    }

    /// Goes to `slow` if `condition` is 0.
    fn go_on_if(&mut self, condition: Value, slow: Block) {
        let next = self.b.create_block();
        self.b.ins().brif(condition, next, &[], slow, &[]);
        self.b.switch_to_block(next);
    }

    /// Host address of the operand.
    fn x87_operand(&mut self, address: Value, size: u32, write: bool, slow: Block) -> Value {
        let (hit, addend, _) = self.look_up(address, Access { size, write, aligned: false });
        self.go_on_if(hit, slow);
        self.b.ins().iadd(address, addend)
    }

    /// Goes to `slow` unless the control word at `host` masks all exceptions. The address of a copy: what is at `host` may
    /// change meanwhile.
    fn masked_control_word(&mut self, host: Value, slow: Block) -> Value {
        let word = self.b.ins().load(types::I16, self.flags.guest, host, 0);
        let masks = self.b.ins().band_imm_s(word, MASKS);
        let masked = self.b.ins().icmp_imm_u(IntCC::Equal, masks, MASKS);
        self.go_on_if(masked, slow);
        self.store_header(word, offset_of!(EnvHeader, slow_value));
        self.header_address(offset_of!(EnvHeader, slow_value))
    }
}
