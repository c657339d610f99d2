//! Operations of the guest's extension, on hosts that have it: see [`crate::target`].

use std::mem::offset_of;

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{Block, BlockArg, InstBuilder, Value, types};
use mimus_ir::block::CallInfo;
use mimus_ir::{Effects, Inst, NONE, Type};
use mimus_softmmu::EnvHeader;

use super::memory::Access;
use super::{Lowering, Slow};
use crate::error::BackendError;
use crate::target::{Form, Operand};
use crate::thunks::routine_signature;

impl Lowering<'_, '_> {
    /// Puts the extension's state back into env before Rust runs.
    pub(super) fn park_extension(&mut self) {
        let live = self.load_header(types::I64, offset_of!(EnvHeader, extension_live));
        let (park, resume) = (self.cold_block(), self.b.create_block());
        self.b.ins().brif(live, park, &[], resume, &[]);
        self.b.switch_to_block(park);
        self.call_slow(Slow::ExtensionPark, &[self.env]);
        self.b.ins().jump(resume, &[]);
        self.b.switch_to_block(resume);
    }

    /// The routine if the extension's state is in the host's unit, or can be, and the operand's page is in the TLB. Otherwise the
    /// helper does all of it.
    pub(super) fn extension(&mut self, inst: &Inst, info: CallInfo, form: Form) -> Result<(), BackendError> {
        let address = self.extension_argument(inst.a)?;
        let value = self.extension_argument(inst.c)?;
        let (slow, join) = (self.cold_block(), self.b.create_block());
        let routines = self.resume_extension(slow);
        let operand = match (form.operand, address, value) {
            (Operand::None, ..) => self.env,
            (Operand::Value, _, Some(value)) => value,
            (Operand::Memory { bytes, write }, Some(address), _) => self.extension_operand(address, bytes, write, slow),
            (Operand::Checked { set }, Some(address), _) => {
                let host = self.extension_operand(address, 2, false, slow);
                self.checked_copy(host, set, slow)
            }
            _ => return Err(self.malformed("an operation of an extension without its operand")),
        };
        let signature = match self.routine_sig {
            Some(signature) => signature,
            None => self.b.import_signature(routine_signature()),
        };
        self.routine_sig = Some(signature);
        let routine = self.b.ins().iadd_imm_s(routines, i64::from(form.routine));
        self.b.ins().call_indirect(signature, routine, &[self.env, operand]);
        self.b.ins().jump(join, &[]);

        self.b.switch_to_block(slow);
        self.store_pc();
        let helper = self.const64(u64::from(info.helper) << 32 | u64::from(info.arg));
        let [address, value] = [address, value].map(|v| v.unwrap_or_else(|| self.const64(0)));
        self.call_slow(Slow::ExtensionStep, &[self.env, address, value, helper]);
        self.leave_on_verdict(join, &[])?;

        self.b.switch_to_block(join);
        if info.effects.contains(Effects::WRITE_ENV) {
            self.region.forget_all();
        }
        let result = match form.result {
            None => self.const64(0),
            Some(mask) => {
                let bits = self.load_header(types::I64, offset_of!(EnvHeader, slow_value));
                if mask == u64::MAX { bits } else { self.b.ins().band_imm_s(bits, mask as i64) }
            }
        };
        let result = self.convert(result, Type::I64, inst.ty);
        self.define(inst.ty, result);
        Ok(())
    }

    /// Has the host's unit take the extension's state if it has not, and goes to `slow` if it cannot. The address of the routines.
    fn resume_extension(&mut self, slow: Block) -> Value {
        let live = self.load_header(types::I64, offset_of!(EnvHeader, extension_live));
        let (resume, next) = (self.cold_block(), self.b.create_block());
        let routines = self.b.append_block_param(next, types::I64);
        self.b.ins().brif(live, next, &[BlockArg::Value(live)], resume, &[]);
        self.b.switch_to_block(resume);
        self.call_slow(Slow::ExtensionResume, &[self.env]);
        let live = self.load_header(types::I64, offset_of!(EnvHeader, extension_live));
        self.b.ins().brif(live, next, &[BlockArg::Value(live)], slow, &[]);
        self.b.switch_to_block(next);
        routines
    }

    fn extension_argument(&mut self, v: mimus_ir::Value) -> Result<Option<Value>, BackendError> {
        if v == NONE { Ok(None) } else { self.int(v, Type::I64).map(Some) }
    }

    /// Goes to `slow` if `condition` is 0.
    fn go_on_if(&mut self, condition: Value, slow: Block) {
        let next = self.b.create_block();
        self.b.ins().brif(condition, next, &[], slow, &[]);
        self.b.switch_to_block(next);
    }

    /// Host address of the operand.
    fn extension_operand(&mut self, address: Value, size: u32, write: bool, slow: Block) -> Value {
        let (hit, addend, _) = self.look_up(address, Access { size, write, aligned: false });
        self.go_on_if(hit, slow);
        self.b.ins().iadd(address, addend)
    }

    /// Goes to `slow` unless the 16 bits at `host` have all those of `set`. The address of a copy: what is at `host` may change
    /// meanwhile.
    fn checked_copy(&mut self, host: Value, set: u16, slow: Block) -> Value {
        let word = self.b.ins().load(types::I16, self.flags.guest, host, 0);
        let bits = self.b.ins().band_imm_s(word, i64::from(set));
        let all = self.b.ins().icmp_imm_u(IntCC::Equal, bits, i64::from(set));
        self.go_on_if(all, slow);
        self.store_header(word, offset_of!(EnvHeader, slow_value));
        self.header_address(offset_of!(EnvHeader, slow_value))
    }
}
