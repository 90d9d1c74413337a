// Delivery of an event in IA-32e mode: 16-byte gates, IST, 64-bit TSS, a frame of five or six aligned quadwords
// (SDM Vol. 3A 6.14; Vol. 2A INT n).

import { i32, select } from "../../wasm/value.ts";
import { faultingHelper, updateMode } from "../helper.ts";
import { notCanonical } from "../segmentation.ts";
import { CPL, FLAG, GPR, IDTR_BASE, RFLAGS, RIP, SEG_ATTR, SREG, TR, VECTOR } from "../state.ts";
import {
  dplOf,
  errorOf,
  fetchDescriptor,
  hasBothLAndD,
  isCode,
  isConforming,
  markAccessed,
  setNullSegment,
  setSegment,
} from "./descriptors.ts";
import {
  checkGateDpl,
  checkIdtLimit,
  clearFlagsOnEntry,
  finishDelivery,
  idtError,
  isSoftware,
  pushedFlags,
} from "./events.ts";
import { CS, SS } from "./modes.ts";

/** Offsets in the 64-bit TSS (SDM Vol. 3A 7.7). */
const TSS64 = { RSP0: 4, IST1: 0x24 } as const;
const GATE = { INTERRUPT: 0xe, TRAP: 0xf } as const;

/** Reads a stack pointer from the 64-bit TSS: number of the quadword from RSP0 (0 to 2) or from IST1 on, error of #TS. */
const tssPointer = faultingHelper("tssPointer", ["i32", "i32"], ["i64"], (x, offset, error) => {
  x.raiseIf(offset.add(7).gtU(x.get(TR.limit)), VECTOR.TS, error);
  x.done(x.load(64, x.get(TR.base).add(offset.zx()), "system"));
});

/** Stack pointer of a privilege level, for event delivery and call gates. */
export const ringPointer = faultingHelper("ringPointer", ["i32", "i32"], ["i64"], (x, level, ext) => {
  x.done(x.call(tssPointer, level.shl(3).add(TSS64.RSP0), errorOf(x.get(TR.selector)).or(ext)));
});

/** Vector, kind (EVENT), error code or -1, RIP to return to. Sets the RIP field. */
export const deliverLong = faultingHelper(
  "deliverLong",
  ["i32", "i32", "i32", "i64"],
  [],
  (x, vector, kind, error, rip) => {
    const { c } = x;
    const software = c.let(isSoftware(kind));
    const ext = c.let(software.xor(1));
    const gateError = c.let(idtError(vector, ext));
    checkIdtLimit(x, vector, 16, gateError);
    const gateAt = c.let(x.get(IDTR_BASE).add(vector.shl(4).zx()));
    const gate = x.load(64, gateAt, "system");
    const gateAttr = c.let(gate.shrU(40).wrap());
    const gateType = c.let(gateAttr.and(0x1f));
    x.raiseIf(gateType.and(GATE.INTERRUPT).ne(GATE.INTERRUPT).or(gateType.gtU(GATE.TRAP)), VECTOR.GP, gateError);
    checkGateDpl(x, software, dplOf(gateAttr), gateError);
    x.raiseIf(gateAttr.and(SEG_ATTR.P).eqz(), VECTOR.NP, gateError);
    const high = x.load(64, gateAt.add(8n), "system");
    const target = c.let(gate.and(0xffffn).or(gate.shrU(48).shl(16)).or(high.shl(32)));
    const selector = c.let(gate.shrU(16).wrap().and(0xffff));
    const codeError = c.let(errorOf(selector).or(ext));
    x.raiseIf(errorOf(selector).eqz(), VECTOR.GP, ext);
    const code = fetchDescriptor(x, selector, VECTOR.GP, codeError);
    const dpl = c.let(dplOf(code.attr));
    const cpl = c.let(x.get(CPL));
    x.raiseIf(isCode(code.attr).eqz().or(dpl.gtU(cpl)), VECTOR.GP, codeError);
    x.raiseIf(code.attr.and(SEG_ATTR.P).eqz(), VECTOR.NP, codeError);
    x.raiseIf(code.attr.and(SEG_ATTR.L).eqz().or(hasBothLAndD(x, code.attr)), VECTOR.GP, codeError);
    const newCpl = c.let(select(isConforming(code.attr), cpl, dpl));
    const inner = c.let(newCpl.ltU(cpl));

    const pointer = c.local("i64", x.gpr(GPR.RSP, 64));
    const ist = c.let(gate.shrU(32).wrap().and(7));
    const tssError = c.let(errorOf(x.get(TR.selector)).or(ext));
    c.if(
      ist,
      () => c.set(pointer, x.call(tssPointer, ist.sub(1).shl(3).add(TSS64.IST1), tssError)),
      () => c.if(inner, () => c.set(pointer, x.call(tssPointer, newCpl.shl(3).add(TSS64.RSP0), tssError))),
    );
    const top = c.let(pointer.and(-16n));
    const withCode = c.let(error.geS(0));
    const newRsp = c.let(top.sub(40n).sub(withCode.zx().shl(3)));
    x.raiseIf(notCanonical(pointer).or(notCanonical(newRsp)), VECTOR.SS, ext);
    x.raiseIf(notCanonical(target), VECTOR.GP, ext);
    const flags = c.let(pushedFlags(x, vector, kind).zx());
    const access = (user: "stack" | "system"): void => {
      x.store(64, top.sub(8n), x.get(SS.selector).zx(), user);
      x.store(64, top.sub(16n), x.gpr(GPR.RSP, 64), user);
      x.store(64, top.sub(24n), flags, user);
      x.store(64, top.sub(32n), x.get(CS.selector).zx(), user);
      x.store(64, top.sub(40n), rip, user);
      c.if(withCode, () => x.store(64, newRsp, error.zx(), user));
    };
    c.if(
      newCpl.eq(3),
      () => access("stack"),
      () => access("system"),
      "unlikely",
    );
    markAccessed(x, code.at, code.attr);

    const oldAttr = c.let(x.get(CS.attr));
    x.invoke(setSegment, SREG.CS, selector.and(0xfffc).or(newCpl), code.low);
    c.if(inner, () => setNullSegment(x, i32(SREG.SS), newCpl, newCpl));
    x.put(CPL, newCpl);
    x.setGpr(GPR.RSP, 64, newRsp);
    x.put(RIP, target);
    const changed = c.let(inner.or(oldAttr.xor(x.get(CS.attr)).and(SEG_ATTR.L)).or(x.get(RFLAGS).and(FLAG.TF)));
    clearFlagsOnEntry(x, gateType.eq(GATE.INTERRUPT));
    finishDelivery(x, vector);
    c.if(changed, () => x.invoke(updateMode), undefined, "likely");
    x.done();
  },
);
