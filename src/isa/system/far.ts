// Far jumps and calls: code segments, call gates, task gates and TSSs (SDM Vol. 3A 5.8, 7.3; Vol. 2A CALL, JMP).

import { i32, select, type Val } from "../../wasm/value.ts";
import { faultingHelper, type Helper, updateMode } from "../helper.ts";
import { in64BitMode, notCanonical } from "../segmentation.ts";
import type { Env } from "../semantics.ts";
import { CPL, GPR, RIP, SEG_ATTR, SREG, VECTOR } from "../state.ts";
import { ringPointer } from "./deliver-long.ts";
import { ringStack, ringStackSegment } from "./deliver-protected.ts";
import { pushPresent } from "./deliver-real.ts";
import {
  baseOf,
  descriptorAddress,
  dplOf,
  errorOf,
  type Fetched,
  fetchDescriptor,
  hasBothLAndD,
  isCode,
  isConforming,
  limitOf,
  markAccessed,
  setNullSegment,
  setPlainSegment,
  setSegment,
} from "./descriptors.ts";
import { CS, isLongMode, isRealOrVirtual, SS } from "./modes.ts";
import { framePush, stackLinear } from "./stack.ts";
import { TASK_REASON, taskSwitch } from "./task.ts";

const SYSTEM_TYPE = { TSS16: 1, CALL16: 4, TASK_GATE: 5, TSS32: 9, CALL: 0xc } as const;

/** Pushes the return address of a call on the present stack and gives the new RSP, not yet written. Bytes an item, CS, RIP. */
const pushReturn = faultingHelper("pushReturn", ["i32", "i32", "i64"], ["i64"], (x, bytes, cs, rip) => {
  const { c } = x;
  c.if(in64BitMode(x), () => {
    const first = c.let(x.gpr(GPR.RSP, 64).sub(bytes.zx()));
    const second = c.let(first.sub(bytes.zx()));
    const push = (bits: 16 | 32 | 64): void => {
      const narrow = (value: Val): Val => (bits === 64 ? value : value.wrap());
      x.store(bits, first, narrow(cs.zx()), "stack");
      x.store(bits, second, bits === 16 ? narrow(rip).and(0xffff) : narrow(rip), "stack");
    };
    c.switch(
      bytes,
      [
        [[2], () => push(16)],
        [[4], () => push(32)],
      ],
      () => push(64),
    );
    x.done(second);
  });
  x.done(pushPresent(x, bytes, i32(0), x.get(CPL).eq(3), [cs, rip.wrap()]).zx());
});

function setStackPointer(x: Env, pointer: Val): void {
  x.c.if(
    in64BitMode(x),
    () => x.setGpr(GPR.RSP, 64, pointer),
    () => x.setGpr(GPR.RSP, 32, pointer.wrap()),
  );
}

/** Loads CS without change of privilege and goes to `target`, both checked. */
function enterCode(x: Env, selector: Val, code: Fetched, target: Val): void {
  markAccessed(x, code.at, code.attr);
  x.invoke(setSegment, SREG.CS, errorOf(selector).or(x.get(CPL)), code.low);
  x.put(RIP, target);
}

/** #GP(0) for a target outside the code segment or, in 64-bit code, the canonical range. */
function checkTarget(x: Env, code: Fetched, target: Val): void {
  const is64 = isLongMode(x).ne(0).and(code.attr.and(SEG_ATTR.L).ne(0));
  x.raiseIf(select(is64, notCanonical(target), target.gtU(limitOf(code.low).zx())), VECTOR.GP, 0);
}

interface GateTarget {
  readonly selector: Val;
  readonly code: Fetched;
  readonly offset: Val;
  /** Bytes of an item pushed. */
  readonly bytes: Val;
  readonly gate: Val;
}

/** Checks a call gate and the code segment behind it (all but privilege of the code segment, which differs for JMP and CALL). */
function callGate(x: Env, gateSelector: Val, gate: Fetched): GateTarget {
  const { c } = x;
  const gateError = c.let(errorOf(gateSelector));
  const dpl = c.let(dplOf(gate.attr));
  x.raiseIf(dpl.ltU(x.get(CPL)).or(dpl.ltU(gateSelector.and(3))), VECTOR.GP, gateError);
  const high = c.local("i64", 0n);
  const long = c.let(isLongMode(x));
  c.if(long, () => {
    const whole = x.call(descriptorAddress, gateSelector, 16);
    x.raiseIf(whole.eq(-1n), VECTOR.GP, gateError);
    c.set(high, x.load(64, whole.add(8n), "system"));
    x.raiseIf(high.bits(40, 5).ne(0n), VECTOR.GP, gateError);
  });
  x.raiseIf(gate.attr.and(SEG_ATTR.P).eqz(), VECTOR.NP, gateError);
  const wide = c.let(gate.attr.and(8));
  const low = c.let(gate.low.and(0xffffn));
  const offset32 = c.let(select(wide, low.or(gate.low.shrU(48).shl(16)), low));
  const offset = c.let(offset32.or(high.shl(32)));
  const selector = c.let(gate.low.shrU(16).wrap().and(0xffff));
  const codeError = c.let(errorOf(selector));
  x.raiseIf(codeError.eqz(), VECTOR.GP, 0);
  const code = fetchDescriptor(x, selector, VECTOR.GP, codeError);
  x.raiseIf(
    isCode(code.attr)
      .eqz()
      .or(dplOf(code.attr).gtU(x.get(CPL))),
    VECTOR.GP,
    codeError,
  );
  const notLong = code.attr.and(SEG_ATTR.L | SEG_ATTR.DB).ne(SEG_ATTR.L);
  x.raiseIf(long.ne(0).and(notLong), VECTOR.GP, codeError);
  x.raiseIf(code.attr.and(SEG_ATTR.P).eqz(), VECTOR.NP, codeError);
  const bytes = c.let(select(long, i32(8), select(wide, i32(4), 2)));
  return { selector, code, offset, bytes, gate: gate.low };
}

/** CALL through a gate to an inner level, in IA-32e mode: a null SS and four quadwords on the stack of the TSS. */
const callInnerLong = faultingHelper(
  "callInnerLong",
  ["i32", "i64", "i64", "i64"],
  [],
  (x, selector, descriptor, target, next) => {
    const { c } = x;
    const level = c.let(dplOf(c.let(descriptor.shrU(40).wrap())));
    const top = x.call(ringPointer, level, 0);
    const rsp = c.let(top.sub(32n));
    x.raiseIf(notCanonical(top).or(notCanonical(rsp)), VECTOR.SS, 0);
    x.store(64, top.sub(8n), x.get(SS.selector).zx(), "system");
    x.store(64, top.sub(16n), x.gpr(GPR.RSP, 64), "system");
    x.store(64, top.sub(24n), x.get(CS.selector).zx(), "system");
    x.store(64, rsp, next, "system");
    setNullSegment(x, i32(SREG.SS), level, level);
    x.invoke(setSegment, SREG.CS, errorOf(selector).or(level), descriptor);
    x.setGpr(GPR.RSP, 64, rsp);
    x.put(CPL, level);
    x.put(RIP, target);
    x.done();
  },
);

/** The same outside IA-32e mode: the gate's count of parameters is copied. Bytes an item, code selector and descriptor, target, gate, next RIP. */
const callInnerLegacy = faultingHelper(
  "callInnerLegacy",
  ["i32", "i32", "i64", "i64", "i64", "i64"],
  [],
  (x, bytes, selector, descriptor, target, gate, next) => {
    const { c } = x;
    const level = c.let(dplOf(c.let(descriptor.shrU(40).wrap())));
    const [pointer, stackSelector] = x.callMany(ringStack, level, 0);
    const [stack] = x.callMany(ringStackSegment, stackSelector, level, 0);
    const error = c.let(errorOf(stackSelector));
    const base = c.let(baseOf(stack));
    const limit = c.let(limitOf(stack));
    const attr = c.let(stack.shrU(40).wrap().and(0xf0ff));
    const newPointer = c.local("i32", pointer);
    const push = (value: Val): void =>
      c.set(newPointer, x.call(framePush, newPointer, value, bytes, base, limit, attr, error, 0));
    push(x.get(SS.selector));
    push(x.gpr(GPR.RSP, 32));
    const left = c.local("i32", gate.shrU(32).wrap().and(0x1f));
    c.loop((next) => {
      c.if(left, () => {
        c.set(left, left.sub(1));
        const from = x.call(stackLinear, left.mul(bytes), bytes);
        c.if(
          bytes.eq(2),
          () => push(x.load(16, from, "stack")),
          () => push(x.load(32, from, "stack")),
        );
        c.br(next);
      });
    });
    push(x.get(CS.selector));
    push(next.wrap());
    x.raiseIf(target.gtU(limitOf(descriptor).zx()), VECTOR.GP, 0);
    x.invoke(setSegment, SREG.SS, stackSelector, stack);
    x.invoke(setSegment, SREG.CS, errorOf(selector).or(level), descriptor);
    x.setGpr(GPR.RSP, 32, newPointer);
    x.put(CPL, level);
    x.put(RIP, target);
    x.done();
  },
);

function jumpThroughGate(x: Env, selector: Val, gate: Fetched): void {
  const to = callGate(x, selector, gate);
  const inner = dplOf(to.code.attr).ne(x.get(CPL)).and(isConforming(to.code.attr).eqz());
  x.raiseIf(inner, VECTOR.GP, errorOf(to.selector));
  checkTarget(x, to.code, to.offset);
  enterCode(x, to.selector, to.code, to.offset);
}

function callThroughGate(x: Env, selector: Val, gate: Fetched, next: Val): void {
  const { c } = x;
  const to = callGate(x, selector, gate);
  const inner = dplOf(to.code.attr).ltU(x.get(CPL)).and(isConforming(to.code.attr).eqz());
  c.if(
    inner,
    () => {
      c.if(
        isLongMode(x),
        () => {
          checkTarget(x, to.code, to.offset);
          markAccessed(x, to.code.at, to.code.attr);
          x.invoke(callInnerLong, to.selector, to.code.low, to.offset, next);
        },
        () => {
          markAccessed(x, to.code.at, to.code.attr);
          x.invoke(callInnerLegacy, to.bytes, to.selector, to.code.low, to.offset, to.gate, next);
        },
      );
    },
    () => {
      const pointer = x.call(pushReturn, to.bytes, x.get(CS.selector), next);
      checkTarget(x, to.code, to.offset);
      setStackPointer(x, pointer);
      enterCode(x, to.selector, to.code, to.offset);
    },
  );
}

/** The target is a TSS, or a task gate that names one. */
function toTask(x: Env, selector: Val, entry: Fetched, isCall: boolean, next: Val): void {
  const { c } = x;
  const reason = isCall ? TASK_REASON.CALL : TASK_REASON.JUMP;
  const error = c.let(errorOf(selector));
  const dpl = c.let(dplOf(entry.attr));
  x.raiseIf(dpl.ltU(x.get(CPL)).or(dpl.ltU(selector.and(3))), VECTOR.GP, error);
  x.raiseIf(entry.attr.and(SEG_ATTR.P).eqz(), VECTOR.NP, error);
  c.if(
    entry.attr.and(0x1f).eq(SYSTEM_TYPE.TASK_GATE),
    () => {
      const tssSelector = c.let(entry.low.shrU(16).wrap().and(0xffff));
      const tssError = c.let(errorOf(tssSelector));
      x.raiseIf(tssSelector.and(4).ne(0).or(tssError.eqz()), VECTOR.GP, tssError);
      const tss = fetchDescriptor(x, tssSelector, VECTOR.GP, tssError);
      x.raiseIf(tss.attr.and(0x17).ne(1), VECTOR.GP, tssError);
      x.raiseIf(tss.attr.and(SEG_ATTR.P).eqz(), VECTOR.NP, tssError);
      x.invoke(taskSwitch, tssSelector, tss.at, tss.low, reason, 0, next);
    },
    () => {
      x.raiseIf(selector.and(4), VECTOR.GP, error);
      x.invoke(taskSwitch, selector, entry.at, entry.low, reason, 0, next);
    },
  );
}

/** JMP or CALL far: selector, offset (zero-extended from the operand size), bytes of the operand size, RIP of the next instruction. */
function farTransfer(isCall: boolean): Helper {
  return faultingHelper(
    isCall ? "callFar" : "jumpFar",
    ["i32", "i64", "i32", "i64"],
    [],
    (x, selector, offset, bytes, next) => {
      const { c } = x;
      c.if(isRealOrVirtual(x), () => {
        const pointer = isCall ? x.call(pushReturn, bytes, x.get(CS.selector), next) : undefined;
        x.raiseIf(offset.gtU(0xffffn), VECTOR.GP, 0);
        if (pointer !== undefined) setStackPointer(x, pointer);
        setPlainSegment(x, i32(SREG.CS), selector);
        x.put(RIP, offset);
        x.invoke(updateMode);
        x.done();
      });
      const error = c.let(errorOf(selector));
      x.raiseIf(error.eqz(), VECTOR.GP, 0);
      const entry = fetchDescriptor(x, selector, VECTOR.GP, error);
      c.if(
        entry.attr.and(SEG_ATTR.S),
        () => {
          const dpl = c.let(dplOf(entry.attr));
          const cpl = c.let(x.get(CPL));
          const strict = dpl.ne(cpl).or(selector.and(3).gtU(cpl));
          const refused = select(isConforming(entry.attr), dpl.gtU(cpl), strict);
          x.raiseIf(isCode(entry.attr).eqz().or(refused).or(hasBothLAndD(x, entry.attr)), VECTOR.GP, error);
          x.raiseIf(entry.attr.and(SEG_ATTR.P).eqz(), VECTOR.NP, error);
          const pointer = isCall ? x.call(pushReturn, bytes, x.get(CS.selector), next) : undefined;
          checkTarget(x, entry, offset);
          if (pointer !== undefined) setStackPointer(x, pointer);
          enterCode(x, selector, entry, offset);
        },
        () => {
          const type = c.let(entry.attr.and(0x1f));
          const isGate = type.eq(SYSTEM_TYPE.CALL).or(type.eq(SYSTEM_TYPE.CALL16).and(isLongMode(x).eqz()));
          c.if(
            isGate,
            () => {
              if (isCall) callThroughGate(x, selector, entry, next);
              else jumpThroughGate(x, selector, entry);
            },
            () => {
              const isTask = type.and(~8).eq(SYSTEM_TYPE.TSS16).or(type.eq(SYSTEM_TYPE.TASK_GATE));
              x.raiseIf(isTask.eqz().or(isLongMode(x).ne(0)), VECTOR.GP, error);
              toTask(x, selector, entry, isCall, next);
            },
          );
        },
      );
      x.invoke(updateMode);
      x.done();
    },
  );
}

export const jumpFar = farTransfer(false);
export const callFar = farTransfer(true);
