// Delivery of an event in protected mode without IA-32e: interrupt, trap and task gates of 16 and 32 bits, stack switch, entry from
// virtual-8086 mode (SDM Vol. 3A 6.12; Vol. 3B 20.2; Vol. 2A INT n).

import { i32, select, type Val } from "../../wasm/value.ts";
import { faultingHelper, updateMode } from "../helper.ts";
import type { Env } from "../semantics.ts";
import { CPL, GPR, IDTR_BASE, PENDING_VECTOR, RIP, SEG_ATTR, SEGMENTS, SREG, TR, VECTOR } from "../state.ts";
import { pushPresent } from "./deliver-real.ts";
import {
  baseOf,
  dplOf,
  errorOf,
  fetchDescriptor,
  isCode,
  isConforming,
  isWritableData,
  limitOf,
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
import { CS, isVirtual8086, SS, wrapLinear } from "./modes.ts";
import { framePush } from "./stack.ts";
import { holdPending, TASK_REASON, taskSwitch } from "./task.ts";

const GATE_TYPE = { TASK: 5, INTERRUPT16: 6, TRAP16: 7, INTERRUPT32: 0xe, TRAP32: 0xf } as const;

/** The stack of an inner privilege level from the TSS: its pointer and selector (SDM Vol. 3A 7.2.1, 7.6). Level, EXT. */
export const ringStack = faultingHelper("ringStack", ["i32", "i32"], ["i32", "i32"], (x, level, ext) => {
  const { c } = x;
  const error = c.let(errorOf(x.get(TR.selector)).or(ext));
  const wide = x.get(TR.attr).and(8);
  c.if(wide, () => {
    const at = c.let(level.shl(3).add(4));
    x.raiseIf(at.add(5).gtU(x.get(TR.limit)), VECTOR.TS, error);
    const linear = c.let(x.get(TR.base).add(at.zx()));
    const pointer = x.load(32, wrapLinear(x, linear), "system");
    x.done(pointer, x.load(16, wrapLinear(x, linear.add(4n)), "system"));
  });
  const at = c.let(level.shl(2).add(2));
  x.raiseIf(at.add(3).gtU(x.get(TR.limit)), VECTOR.TS, error);
  const both = x.load(32, wrapLinear(x, x.get(TR.base).add(at.zx())), "system");
  x.done(both.and(0xffff), both.shrU(16));
});

/** Checks the stack segment of an inner level; gives the descriptor and its address (SDM Vol. 2A INT n, CALL). Selector, level, EXT. */
export const ringStackSegment = faultingHelper(
  "ringStackSegment",
  ["i32", "i32", "i32"],
  ["i64", "i64"],
  (x, selector, level, ext) => {
    const { c } = x;
    x.raiseIf(errorOf(selector).eqz(), VECTOR.TS, ext);
    const error = c.let(errorOf(selector).or(ext));
    const stack = fetchDescriptor(x, selector, VECTOR.TS, error);
    const wrong = selector.and(3).ne(level).or(dplOf(stack.attr).ne(level)).or(isWritableData(stack.attr).eqz());
    x.raiseIf(wrong, VECTOR.TS, error);
    x.raiseIf(stack.attr.and(SEG_ATTR.P).eqz(), VECTOR.SS, error);
    markAccessed(x, stack.at, stack.attr);
    x.done(stack.low, stack.at);
  },
);

/** Pushes the error code of an exception on the stack of the task that its task gate led to. Bytes, error. */
const pushTaskError = faultingHelper("pushTaskError", ["i32", "i32"], [], (x, bytes, error) => {
  const pointer = pushPresent(x, bytes, i32(0), x.get(CPL).eq(3), [error]);
  x.setGpr(GPR.RSP, 32, pointer);
  x.done();
});

function throughTaskGate(x: Env, selector: Val, ext: Val, vector: Val, error: Val, rip: Val): void {
  const { c } = x;
  const tssError = c.let(errorOf(selector).or(ext));
  x.raiseIf(selector.and(4).ne(0).or(errorOf(selector).eqz()), VECTOR.GP, tssError);
  const tss = fetchDescriptor(x, selector, VECTOR.GP, tssError);
  x.raiseIf(tss.attr.and(0x17).ne(1), VECTOR.GP, tssError);
  x.raiseIf(tss.attr.and(SEG_ATTR.P).eqz(), VECTOR.NP, tssError);
  x.invoke(taskSwitch, selector, tss.at, tss.low, TASK_REASON.EVENT, ext, rip);
  finishDelivery(x, vector);
  // A fault of the new task's segments is pending by now and goes first; there is no stack to push on.
  c.if(error.geS(0).and(x.get(PENDING_VECTOR).ltS(0)), () => {
    c.drop(x.attempt(pushTaskError, select(x.get(TR.attr).and(8), i32(4), 2), error));
  });
  holdPending(x);
}

/** Vector, kind (EVENT), error code or -1, RIP to return to. Sets the RIP field. */
export const deliverProtected = faultingHelper(
  "deliverProtected",
  ["i32", "i32", "i32", "i64"],
  [],
  (x, vector, kind, error, rip) => {
    const { c } = x;
    const software = c.let(isSoftware(kind));
    const ext = c.let(software.xor(1));
    const gateError = c.let(idtError(vector, ext));
    checkIdtLimit(x, vector, 8, gateError);
    const gate = x.load(64, wrapLinear(x, x.get(IDTR_BASE).add(vector.shl(3).zx())), "system");
    const gateAttr = c.let(gate.shrU(40).wrap());
    const type = c.let(gateAttr.and(0x1f));
    const isTask = c.let(type.eq(GATE_TYPE.TASK));
    const known = type.and(~9).eq(GATE_TYPE.INTERRUPT16).or(isTask);
    x.raiseIf(known.eqz(), VECTOR.GP, gateError);
    checkGateDpl(x, software, dplOf(gateAttr), gateError);
    x.raiseIf(gateAttr.and(SEG_ATTR.P).eqz(), VECTOR.NP, gateError);
    const selector = c.let(gate.shrU(16).wrap().and(0xffff));
    c.if(isTask, () => {
      throughTaskGate(x, selector, ext, vector, error, rip);
      x.done();
    });

    const wide = c.let(type.and(8));
    const bytes = c.let(select(wide, i32(4), 2));
    const low = c.let(gate.wrap().and(0xffff));
    const target = c.let(select(wide, low.or(gate.shrU(32).wrap().and(0xffff0000)), low));
    x.raiseIf(errorOf(selector).eqz(), VECTOR.GP, ext);
    const codeError = c.let(errorOf(selector).or(ext));
    const code = fetchDescriptor(x, selector, VECTOR.GP, codeError);
    const cpl = c.let(x.get(CPL));
    const dpl = c.let(dplOf(code.attr));
    x.raiseIf(isCode(code.attr).eqz().or(dpl.gtU(cpl)), VECTOR.GP, codeError);
    x.raiseIf(code.attr.and(SEG_ATTR.P).eqz(), VECTOR.NP, codeError);
    const conforming = c.let(isConforming(code.attr));
    const virtual = c.let(isVirtual8086(x).ne(0));
    x.raiseIf(virtual.and(conforming.or(dpl.ne(0))), VECTOR.GP, codeError);
    const newCpl = c.let(select(conforming, cpl, dpl));
    const user = c.let(newCpl.eq(3));
    const flags = c.let(pushedFlags(x, vector, kind));
    const beyondCode = c.let(target.gtU(limitOf(code.low)));
    const newPointer = c.local("i32");

    c.if(
      newCpl.ltU(cpl),
      () => {
        const [pointer, stackSelector] = x.callMany(ringStack, newCpl, ext);
        const [stack] = x.callMany(ringStackSegment, stackSelector, newCpl, ext);
        const stackError = c.let(errorOf(stackSelector).or(ext));
        const base = c.let(baseOf(stack));
        const limit = c.let(limitOf(stack));
        const attr = c.let(stack.shrU(40).wrap().and(0xf0ff));
        c.set(newPointer, pointer);
        const push = (value: Val): void =>
          c.set(newPointer, x.call(framePush, newPointer, value, bytes, base, limit, attr, stackError, user));
        c.if(virtual, () => {
          for (const number of [SREG.GS, SREG.FS, SREG.DS, SREG.ES]) push(x.get(SEGMENTS[number].selector));
        });
        push(x.get(SS.selector));
        push(x.gpr(GPR.RSP, 32));
        push(flags);
        push(x.get(CS.selector));
        push(rip.wrap());
        c.if(error.geS(0), () => push(error));
        x.raiseIf(beyondCode, VECTOR.GP, ext);
        c.if(virtual, () => {
          for (const number of [SREG.GS, SREG.FS, SREG.DS, SREG.ES]) setNullSegment(x, i32(number), 0);
        });
        x.invoke(setSegment, SREG.SS, stackSelector, stack);
      },
      () => {
        c.set(newPointer, pushPresent(x, bytes, ext, user, [flags, x.get(CS.selector), rip.wrap()]));
        c.if(error.geS(0), () => {
          const [base, limit, attr] = [x.get(SS.base), x.get(SS.limit), x.get(SS.attr)];
          c.set(newPointer, x.call(framePush, newPointer, error, bytes, base, limit, attr, ext, user));
        });
        x.raiseIf(beyondCode, VECTOR.GP, ext);
      },
    );
    markAccessed(x, code.at, code.attr);
    x.invoke(setSegment, SREG.CS, errorOf(selector).or(newCpl), code.low);
    x.put(CPL, newCpl);
    x.setGpr(GPR.RSP, 32, newPointer);
    x.put(RIP, target.zx());
    clearFlagsOnEntry(x, type.and(~8).eq(GATE_TYPE.INTERRUPT16));
    finishDelivery(x, vector);
    x.invoke(updateMode);
    x.done();
  },
);
