// Task switches of protected mode (SDM Vol. 3A 7.2 to 7.4).

import type { Local } from "../../wasm/code.ts";
import { i32, select, type Val } from "../../wasm/value.ts";
import { ANOMALY } from "../anomaly.ts";
import { anomaly, faultingHelper, flushScope, flushTlb, loadPdptes, updateMode } from "../helper.ts";
import type { Env } from "../semantics.ts";
import {
  CPL,
  CR0,
  CR0_BIT,
  CR3,
  DR6,
  DR7,
  FLAG,
  LDTR,
  PENDING_ERROR,
  PENDING_VECTOR,
  RFLAGS,
  RIP,
  SEG_ATTR,
  SEGMENTS,
  SHADOW,
  SREG,
  TR,
  VECTOR,
} from "../state.ts";
import {
  attrOf,
  baseOf,
  descriptorAddress,
  dplOf,
  errorOf,
  fetchDescriptor,
  isCode,
  isConforming,
  isWritableData,
  LDTR_NUMBER,
  limitOf,
  markAccessed,
  setNullSegment,
  setSegment,
  setVirtualSegment,
  TSS_BUSY,
} from "./descriptors.ts";
import { CS, SS, wrapLinear } from "./modes.ts";
import { RFLAGS_BITS, setRflags } from "./rflags.ts";

/** Interrupt shadow of a task that starts with an exception pending: makes the run loop look at it before anything else. */
const SHADOW_PENDING = 4;

/** Has the exception that a task switch left pending, if any, delivered before the new task's first instruction. */
export function holdPending(x: Env): void {
  x.c.if(x.get(PENDING_VECTOR).geS(0), () => x.put(SHADOW, SHADOW_PENDING));
}

/** What caused the switch: JMP, CALL, IRET with NT, or an event through a task gate. */
export const TASK_REASON = { JUMP: 0, CALL: 1, RETURN: 2, EVENT: 3 } as const;

/** Where things lie in a TSS (SDM Vol. 3A 7.2.1, 7.6). */
interface TssLayout {
  readonly bits: 16 | 32;
  readonly minimumLimit: number;
  readonly cr3?: number;
  readonly ip: number;
  readonly flags: number;
  readonly gprs: number;
  readonly segments: number;
  readonly segmentCount: number;
  readonly ldt: number;
  readonly trap?: number;
}

const TSS32: TssLayout = {
  bits: 32,
  minimumLimit: 0x67,
  cr3: 0x1c,
  ip: 0x20,
  flags: 0x24,
  gprs: 0x28,
  segments: 0x48,
  segmentCount: 6,
  ldt: 0x60,
  trap: 0x64,
};

const TSS16: TssLayout = {
  bits: 16,
  minimumLimit: 0x2b,
  ip: 0x0e,
  flags: 0x10,
  gprs: 0x12,
  segments: 0x22,
  segmentCount: 4,
  ldt: 0x2a,
};

/** DR6.BT and the local enable bits of DR7 (SDM Vol. 3B 17.2.3, 17.2.4). */
const DR6_BT = 1 << 15;
const DR7_LOCAL = 0x155;

function at(x: Env, base: Val, offset: number): Val {
  return wrapLinear(x, base.add(BigInt(offset)));
}

/** Saves the outgoing task: EIP, EFLAGS, and the registers as they are. */
function saveTask(x: Env, layout: TssLayout, ip: Val, flags: Val): void {
  const { c } = x;
  const base = c.let(x.get(TR.base));
  const size = layout.bits / 8;
  const last = layout.segments + (layout.segmentCount - 1) * size + 1;
  x.raiseIf(x.get(TR.limit).ltU(last), VECTOR.TS, errorOf(x.get(TR.selector)));
  x.probeWrite(8, at(x, base, layout.ip), "system");
  x.probeWrite(8, at(x, base, last), "system");
  const store = (offset: number, value: Val): void => x.store(layout.bits, at(x, base, offset), value, "system");
  const narrow = (value: Val): Val => (layout.bits === 16 ? value.and(0xffff) : value);
  store(layout.ip, narrow(ip));
  store(layout.flags, narrow(flags));
  for (let n = 0; n < 8; n++) store(layout.gprs + n * size, narrow(x.gpr(n, 32)));
  for (let n = 0; n < layout.segmentCount; n++)
    x.store(16, at(x, base, layout.segments + n * size), x.get(SEGMENTS[n].selector), "system");
}

interface IncomingTask {
  readonly cr3: Local;
  readonly ip: Local;
  readonly flags: Local;
  readonly gprs: readonly Local[];
  readonly segments: readonly Local[];
  readonly ldt: Local;
  readonly trap: Local;
}

function incomingTask(x: Env): IncomingTask {
  const word = (): Local => x.c.local("i32", 0);
  return {
    cr3: word(),
    ip: word(),
    flags: word(),
    gprs: Array.from({ length: 8 }, word),
    segments: Array.from({ length: 6 }, word),
    ldt: word(),
    trap: word(),
  };
}

function readTask(x: Env, layout: TssLayout, base: Val, task: IncomingTask): void {
  const { c } = x;
  const size = layout.bits / 8;
  const load = (offset: number): Val => x.load(layout.bits, at(x, base, offset), "system");
  if (layout.cr3 !== undefined) c.set(task.cr3, load(layout.cr3));
  c.set(task.ip, load(layout.ip));
  c.set(task.flags, load(layout.flags));
  // Both forms keep the general registers in encoding order. What a 16-bit TSS leaves in the upper halves is undefined; zero here.
  for (let n = 0; n < 8; n++) c.set(task.gprs[n], load(layout.gprs + n * size));
  for (let n = 0; n < layout.segmentCount; n++)
    c.set(task.segments[n], x.load(16, at(x, base, layout.segments + n * size), "system"));
  c.set(task.ldt, x.load(16, at(x, base, layout.ldt), "system"));
  if (layout.trap !== undefined) c.set(task.trap, x.load(16, at(x, base, layout.trap), "system").and(1));
}

/** Changes the busy bit of the TSS descriptor at a linear address. */
function setBusy(x: Env, linear: Val, busy: boolean): void {
  x.updateByte(x.c.let(linear.add(5n)), busy ? "or" : "and", busy ? TSS_BUSY : ~TSS_BUSY & 0xff);
}

/** Loads and checks LDTR and the segment registers by the selectors now in them, in the new task's context. EXT. */
const loadTaskSegments = faultingHelper("loadTaskSegments", ["i32"], [], (x, ext) => {
  const { c } = x;
  const selectors = SEGMENTS.map((segment) => c.let(x.get(segment.selector)));
  const ldt = c.let(x.get(LDTR.selector));
  c.if(errorOf(ldt), () => {
    const error = c.let(errorOf(ldt).or(ext));
    x.raiseIf(ldt.and(4), VECTOR.TS, error);
    const table = fetchDescriptor(x, ldt, VECTOR.TS, error);
    x.raiseIf(table.attr.and(0x1f).ne(2).or(table.attr.and(SEG_ATTR.P).eqz()), VECTOR.TS, error);
    x.put(LDTR.base, baseOf(table.low));
    x.put(LDTR.limit, limitOf(table.low));
    x.put(LDTR.attr, table.attr);
  });
  c.if(x.get(RFLAGS).and(FLAG.VM), () => {
    for (const [number, selector] of selectors.entries()) setVirtualSegment(x, i32(number), selector);
    x.done();
  });

  const cpl = c.let(x.get(CPL));
  const stackSelector = selectors[SREG.SS];
  const stackError = c.let(errorOf(stackSelector).or(ext));
  x.raiseIf(errorOf(stackSelector).eqz(), VECTOR.TS, stackError);
  const stack = fetchDescriptor(x, stackSelector, VECTOR.TS, stackError);
  const wrongStack = isWritableData(stack.attr).eqz().or(dplOf(stack.attr).ne(cpl)).or(stackSelector.and(3).ne(cpl));
  x.raiseIf(wrongStack, VECTOR.TS, stackError);
  x.raiseIf(stack.attr.and(SEG_ATTR.P).eqz(), VECTOR.SS, stackError);
  markAccessed(x, stack.at, stack.attr);
  x.invoke(setSegment, SREG.SS, stackSelector, stack.low);

  const codeSelector = selectors[SREG.CS];
  const codeError = c.let(errorOf(codeSelector).or(ext));
  x.raiseIf(errorOf(codeSelector).eqz(), VECTOR.TS, codeError);
  const code = fetchDescriptor(x, codeSelector, VECTOR.TS, codeError);
  const wrongCode = select(isConforming(code.attr), dplOf(code.attr).gtU(cpl), dplOf(code.attr).ne(cpl));
  x.raiseIf(isCode(code.attr).eqz().or(wrongCode), VECTOR.TS, codeError);
  x.raiseIf(code.attr.and(SEG_ATTR.P).eqz(), VECTOR.NP, codeError);
  markAccessed(x, code.at, code.attr);
  x.invoke(setSegment, SREG.CS, codeSelector, code.low);

  for (const number of [SREG.DS, SREG.ES, SREG.FS, SREG.GS]) {
    const selector = selectors[number];
    c.if(errorOf(selector), () => {
      const error = c.let(errorOf(selector).or(ext));
      const data = fetchDescriptor(x, selector, VECTOR.TS, error);
      const unreadable = data.attr.and(SEG_ATTR.S).eqz().or(data.attr.and(0xa).eq(8));
      const privilege = dplOf(data.attr)
        .ltU(cpl)
        .or(dplOf(data.attr).ltU(selector.and(3)));
      x.raiseIf(unreadable.or(isConforming(data.attr).eqz().and(privilege)), VECTOR.TS, error);
      x.raiseIf(data.attr.and(SEG_ATTR.P).eqz(), VECTOR.NP, error);
      markAccessed(x, data.at, data.attr);
      x.invoke(setSegment, number, selector, data.low);
    });
  }
  x.raiseIf(x.get(RIP).wrap().gtU(x.get(CS.limit)), VECTOR.GP, ext);
  x.done();
});

/**
 * Switches to the task of a TSS descriptor that has passed the privilege, type and presence checks of its cause: selector, linear address
 * of the descriptor, the descriptor, reason, EXT, EIP to save. A fault before the switch is raised; one in the new task's
 * context is left pending there and the helper returns as done (SDM Vol. 3A 7.3, table 7-1). Sets the RIP field.
 */
export const taskSwitch = faultingHelper(
  "taskSwitch",
  ["i32", "i64", "i64", "i32", "i32", "i64"],
  [],
  (x, selector, descriptorAt, descriptor, reason, ext, returnIp) => {
    const { c } = x;
    const error = c.let(errorOf(selector).or(ext));
    const attr = c.let(attrOf(descriptor));
    const wide = c.let(attr.and(8));
    const base = c.let(baseOf(descriptor));
    const limit = c.let(limitOf(descriptor));
    x.raiseIf(limit.ltU(select(wide, i32(TSS32.minimumLimit), TSS16.minimumLimit)), VECTOR.TS, error);
    x.invoke(anomaly, ANOMALY.TASK_SWITCH, selector);
    const nested = c.let(reason.eq(TASK_REASON.CALL).or(reason.eq(TASK_REASON.EVENT)));
    const oldSelector = c.let(x.get(TR.selector));

    const task = incomingTask(x);
    c.if(
      wide,
      () => readTask(x, TSS32, base, task),
      () => readTask(x, TSS16, base, task),
    );
    c.if(nested, () => x.probeWrite(16, at(x, base, 0), "system"));
    x.probeWrite(8, descriptorAt.add(5n), "system");
    const isReturn = reason.eq(TASK_REASON.RETURN);
    const flags = c.let(select(isReturn, x.rflags().and(~FLAG.NT), x.rflags()));
    c.if(
      x.get(TR.attr).and(8),
      () => saveTask(x, TSS32, returnIp.wrap(), flags),
      () => saveTask(x, TSS16, returnIp.wrap(), flags),
    );
    c.if(nested.eqz(), () => {
      const old = x.call(descriptorAddress, oldSelector, 8);
      c.if(old.ne(-1n), () => setBusy(x, old, false));
    });
    c.if(nested, () => x.store(16, at(x, base, 0), oldSelector, "system"));
    c.if(reason.ne(TASK_REASON.RETURN), () => setBusy(x, descriptorAt, true));

    x.put(TR.selector, selector);
    x.put(TR.base, base);
    x.put(TR.limit, limit);
    x.put(TR.attr, attr.or(2));
    x.put(CR0, x.get(CR0).or(CR0_BIT.TS));
    x.put(DR7, x.get(DR7).and(~DR7_LOCAL));
    setRflags(x, select(nested, task.flags.or(FLAG.NT), task.flags), RFLAGS_BITS);
    x.put(RIP, task.ip.zx());
    for (const [number, value] of task.gprs.entries()) x.setGpr(number, 32, value);
    for (const [number, value] of task.segments.entries()) setNullSegment(x, i32(number), value);
    setNullSegment(x, i32(LDTR_NUMBER), task.ldt);
    x.put(CPL, select(task.flags.and(FLAG.VM), i32(3), task.segments[SREG.CS].and(3)));
    // A task whose segments fail to load has no usable stack or code yet; what it faults with is delivered from here.
    x.put(SS.attr, x.get(CPL).shl(SEG_ATTR.DPL_SHIFT).or(SEG_ATTR.UNUSABLE));
    const failed = c.local("i32", 0);
    c.if(wide.ne(0).and(x.get(CR0).shrU(31)), () => {
      const cr3 = c.let(task.cr3.zx());
      c.if(cr3.ne(x.get(CR3)), () => {
        x.put(CR3, cr3);
        x.invoke(flushTlb, flushScope.SPACE);
        c.set(failed, x.attempt(loadPdptes, cr3));
      });
    });
    x.invoke(updateMode);
    c.if(failed, () => {
      holdPending(x);
      x.done();
    });
    c.if(x.attempt(loadTaskSegments, ext).eqz(), () => {
      c.if(task.trap, () => {
        x.put(DR6, x.get(DR6).or(DR6_BT));
        x.put(PENDING_VECTOR, VECTOR.DB);
        x.put(PENDING_ERROR, -1);
      });
    });
    holdPending(x);
    x.invoke(updateMode);
    x.done();
  },
);
