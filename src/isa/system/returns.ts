// Far returns and returns from interrupts in every mode (SDM Vol. 2A IRET; Vol. 2B RET; Vol. 3A 6.14.3; Vol. 3B 20.2).

import { i32, i64, select, type Val } from "../../wasm/value.ts";
import { faultingHelper, type Helper, helper, updateMode } from "../helper.ts";
import { in64BitMode, notCanonical } from "../segmentation.ts";
import type { Env } from "../semantics.ts";
import { CPL, DR7, FLAG, GPR, NMI_BLOCKED, RFLAGS, RIP, SEG_ATTR, SEGMENTS, SREG, TR, VECTOR } from "../state.ts";
import {
  attrOf,
  dplOf,
  errorOf,
  fetchDescriptor,
  hasBothLAndD,
  isCode,
  isConforming,
  isWritableData,
  limitOf,
  markAccessed,
  setNullSegment,
  setPlainSegment,
  setSegment,
  setVirtualSegment,
} from "./descriptors.ts";
import { CS, iopl, isLongMode, isProtected, isVirtual8086, SS, wrapLinear } from "./modes.ts";
import { MODE_FLAGS, RFLAGS_BITS, setRflags, USER_FLAGS, writableFlags } from "./rflags.ts";
import { adjustStack, readStack } from "./stack.ts";
import { TASK_REASON, taskSwitch } from "./task.ts";

/** Checks the code segment that a return leads to; gives its descriptor and the descriptor's address. */
const returnCode = faultingHelper("returnCode", ["i32"], ["i64", "i64"], (x, selector) => {
  const { c } = x;
  const error = c.let(errorOf(selector));
  x.raiseIf(error.eqz(), VECTOR.GP, 0);
  const code = fetchDescriptor(x, selector, VECTOR.GP, error);
  const rpl = c.let(selector.and(3));
  const dpl = c.let(dplOf(code.attr));
  const wrong = select(isConforming(code.attr), dpl.gtU(rpl), dpl.ne(rpl));
  const refused = isCode(code.attr)
    .eqz()
    .or(rpl.ltU(x.get(CPL)))
    .or(wrong)
    .or(hasBothLAndD(x, code.attr));
  x.raiseIf(refused, VECTOR.GP, error);
  x.raiseIf(code.attr.and(SEG_ATTR.P).eqz(), VECTOR.NP, error);
  x.done(code.low, code.at);
});

/** Checks the stack segment that a return leads to: selector, privilege returned to, whether to 64-bit code. Gives its descriptor, or 0 for null. */
const returnStack = faultingHelper("returnStack", ["i32", "i32", "i32"], ["i64"], (x, selector, level, to64) => {
  const { c } = x;
  const error = c.let(errorOf(selector));
  c.if(error.eqz(), () => {
    x.raiseIf(to64.eqz().or(level.eq(3)), VECTOR.GP, 0);
    x.done(0n);
  });
  const stack = fetchDescriptor(x, selector, VECTOR.GP, error);
  const refused = selector.and(3).ne(level).or(dplOf(stack.attr).ne(level)).or(isWritableData(stack.attr).eqz());
  x.raiseIf(refused, VECTOR.GP, error);
  x.raiseIf(stack.attr.and(SEG_ATTR.P).eqz(), VECTOR.SS, error);
  markAccessed(x, stack.at, stack.attr);
  x.done(stack.low);
});

/** After a return to an outer level: registers that hold segments it may not use become null (SDM Vol. 3A 5.8.6). */
const dropInnerSegments = helper("dropInnerSegments", ["i32"], [], (x, level) => {
  for (const number of [SREG.ES, SREG.DS, SREG.FS, SREG.GS]) {
    const segment = SEGMENTS[number];
    const attr = x.c.let(x.get(segment.attr));
    const usable = attr.and(SEG_ATTR.UNUSABLE).eqz().and(isConforming(attr).eqz());
    x.c.if(usable.and(dplOf(attr).ltU(level)), () => setNullSegment(x, i32(number), 0), undefined, "unlikely");
  }
  x.done();
});

/** Checks the instruction pointer against the code segment returned to. */
function checkTarget(x: Env, ip: Val, to64: Val, code: Val): void {
  x.raiseIf(select(to64, notCanonical(ip), ip.gtU(limitOf(code).zx())), VECTOR.GP, 0);
}

function is64BitCode(x: Env, attr: Val): Val {
  return isLongMode(x).ne(0).and(attr.and(SEG_ATTR.L).ne(0));
}

/** Loads CS, SS and the stack pointer of an outer level, or of the same one in 64-bit mode. */
function loadOuter(x: Env, cs: Val, code: Val, ss: Val, stack: Val, pointer: Val, wide: boolean): void {
  const { c } = x;
  const level = c.let(cs.and(3));
  x.invoke(setSegment, SREG.CS, cs, code);
  c.if(
    stack.eqz(),
    () => setNullSegment(x, i32(SREG.SS), ss, level),
    () => x.invoke(setSegment, SREG.SS, ss, stack),
  );
  if (wide) {
    const is64 = x.get(CS.attr).and(SEG_ATTR.L);
    c.if(
      is64.or(x.get(SS.attr).and(SEG_ATTR.DB)),
      () => x.setGpr(GPR.RSP, 64, pointer),
      () => x.setGpr(GPR.RSP, 16, pointer.wrap().and(0xffff)),
    );
  } else {
    // A 16-bit stack segment takes SP alone.
    c.if(
      x
        .get(SS.attr)
        .and(SEG_ATTR.DB)
        .or(is64BitCode(x, x.get(CS.attr))),
      () => x.setGpr(GPR.RSP, 32, pointer.wrap()),
      () => x.setGpr(GPR.RSP, 16, pointer.wrap().and(0xffff)),
    );
  }
  c.if(level.ne(x.get(CPL)), () => x.invoke(dropInnerSegments, level));
  x.put(CPL, level);
}

/** The bits of RFLAGS that IRET takes in protected mode. RF matters, and is kept, only while DR7 enables breakpoints. */
function iretMask(x: Env, bits: number): Val {
  const mask = writableFlags(x);
  if (bits === 16) return mask.and(0xffff);
  const ring0 = select(x.get(CPL).eqz(), i32(FLAG.VIF | FLAG.VIP), 0);
  return mask.or(ring0).or(select(x.get(DR7).and(0xff), i32(FLAG.RF), 0));
}

/** IRET in protected mode: `wide` in 64-bit mode, where SS and RSP are always popped. */
function protectedIret(bits: 16 | 32 | 64, wide: boolean): Helper {
  return faultingHelper(`iret${bits}${wide ? "Wide" : ""}`, ["i64"], [], (x, next) => {
    const { c } = x;
    const size = bits / 8;
    const pop = (index: number): Val => readStack(x, bits, index * size, wide);
    x.put(NMI_BLOCKED, 0);
    if (wide) x.raiseIf(x.get(RFLAGS).and(FLAG.NT), VECTOR.GP, 0);
    else {
      c.if(x.get(RFLAGS).and(FLAG.NT), () => {
        x.raiseIf(isLongMode(x), VECTOR.GP, 0);
        x.invoke(returnToTask, next);
        x.done();
      });
    }
    const ip = pop(0);
    const cs = c.let(pop(1).wrap().and(0xffff));
    const flags = c.let(pop(2).wrap());
    if (!wide && bits === 32) {
      c.if(flags.and(FLAG.VM).ne(0).and(x.get(CPL).eqz()).and(isLongMode(x).eqz()), () => {
        x.invoke(returnToVirtual, ip, cs, flags);
        x.done();
      });
    }
    const [code, codeAt] = x.callMany(returnCode, cs);
    const attr = c.let(attrOf(code));
    const to64 = c.let(is64BitCode(x, attr));
    const mask = c.let(iretMask(x, bits));
    const before = c.let(x.get(RFLAGS));
    const oldCpl = c.let(x.get(CPL));
    const oldAttr = c.let(x.get(CS.attr));
    const outer = (): void => {
      const pointer = pop(3);
      const ss = c.let(pop(4).wrap().and(0xffff));
      const stack = x.call(returnStack, ss, cs.and(3), to64);
      checkTarget(x, ip, to64, code);
      markAccessed(x, codeAt, attr);
      setRflags(x, flags, mask);
      loadOuter(x, cs, code, ss, stack, pointer, wide);
    };
    if (wide) outer();
    else {
      c.if(cs.and(3).gtU(oldCpl), outer, () => {
        checkTarget(x, ip, to64, code);
        markAccessed(x, codeAt, attr);
        setRflags(x, flags, mask);
        x.invoke(adjustStack, 3 * size);
        x.invoke(setSegment, SREG.CS, cs, code);
      });
    }
    x.put(RIP, ip);
    if (wide) {
      const segments = oldAttr.xor(attr).and(SEG_ATTR.L | SEG_ATTR.DB);
      const changed = segments.or(oldCpl.xor(x.get(CPL))).or(before.xor(x.get(RFLAGS)).and(MODE_FLAGS));
      c.if(changed, () => x.invoke(updateMode));
    } else x.invoke(updateMode);
    x.done();
  });
}

/** IRET with NT set: to the task that the TSS links back to. RIP of the next instruction, where this task goes on when it runs again. */
const returnToTask = faultingHelper("returnToTask", ["i64"], [], (x, next) => {
  const { c } = x;
  const link = x.load(16, wrapLinear(x, x.get(TR.base)), "system");
  const error = c.let(errorOf(link));
  x.raiseIf(link.and(4).ne(0).or(error.eqz()), VECTOR.TS, error);
  const tss = fetchDescriptor(x, link, VECTOR.TS, error);
  x.raiseIf(tss.attr.and(0x17).ne(3), VECTOR.TS, error);
  x.raiseIf(tss.attr.and(SEG_ATTR.P).eqz(), VECTOR.NP, error);
  x.invoke(taskSwitch, link, tss.at, tss.low, TASK_REASON.RETURN, 0, next);
  x.done();
});

/** IRETD of ring 0 to virtual-8086 mode: EIP, CS, EFLAGS as popped; six more doublewords follow on the stack. */
const returnToVirtual = faultingHelper("returnToVirtual", ["i64", "i32", "i32"], [], (x, ip, cs, flags) => {
  const { c } = x;
  const pop = (index: number): Val => c.let(readStack(x, 32, index * 4, false).wrap());
  const pointer = pop(3);
  const order = [SREG.SS, SREG.ES, SREG.DS, SREG.FS, SREG.GS];
  const selectors = order.map((_, index) => c.let(pop(4 + index).and(0xffff)));
  x.raiseIf(ip.gtU(0xffffn), VECTOR.GP, 0);
  for (const [index, number] of order.entries()) setVirtualSegment(x, i32(number), selectors[index]);
  setVirtualSegment(x, i32(SREG.CS), cs);
  setRflags(x, flags, RFLAGS_BITS);
  x.setGpr(GPR.RSP, 32, pointer);
  x.put(RIP, ip);
  x.put(CPL, 3);
  x.invoke(updateMode);
  x.done();
});

/** IRET in real-address and virtual-8086 mode. Operand size in bits. */
const iretReal = faultingHelper("iretReal", ["i32"], [], (x, bits) => {
  const { c } = x;
  const size = c.let(bits.shrU(3));
  const virtual = c.let(isVirtual8086(x).ne(0));
  // NMIs are let through even if IRET faults, this way too (SDM Vol. 3A 6.7.1).
  x.put(NMI_BLOCKED, 0);
  x.raiseIf(virtual.and(iopl(x).ltU(3)), VECTOR.GP, 0);
  const items = [0, 1, 2].map(() => c.local("i32"));
  const popAll = (width: 16 | 32): void => {
    for (const [index, item] of items.entries()) c.set(item, readStack(x, width, i32(index).mul(size), false).wrap());
  };
  c.if(
    bits.eq(16),
    () => popAll(16),
    () => popAll(32),
  );
  const [ip, cs, flags] = items;
  c.set(cs, cs.and(0xffff));
  x.raiseIf(ip.gtU(0xffff), VECTOR.GP, 0);
  x.invoke(adjustStack, size.mul(3));
  setPlainSegment(x, i32(SREG.CS), cs);
  x.put(RIP, ip.zx());
  const all = select(virtual, i32(USER_FLAGS | FLAG.IF), USER_FLAGS | FLAG.IF | FLAG.IOPL);
  setRflags(x, flags, c.let(select(bits.eq(16), all.and(0xffff), all)));
  x.invoke(updateMode);
  x.done();
});

/** A return's forms in protected mode by operand size, from 64-bit code and from other. */
interface ReturnForms {
  readonly wide: { readonly [bits in 16 | 32 | 64]: Helper };
  readonly narrow: { readonly [bits in 16 | 32]: Helper };
}

function returnForms(form: (bits: 16 | 32 | 64, wide: boolean) => Helper): ReturnForms {
  return {
    wide: { 16: form(16, true), 32: form(32, true), 64: form(64, true) },
    narrow: { 16: form(16, false), 32: form(32, false) },
  };
}

const IRET = returnForms(protectedIret);

/** A return of a constant operand size, in the form for the mode that it runs in; `long` where that is known to be 64-bit mode. */
function returnByMode(
  x: Env,
  bits: 16 | 32 | 64,
  long: boolean,
  { wide, narrow }: ReturnForms,
  operand: Val,
  real: () => void,
): void {
  if (long || bits === 64) {
    x.invoke(wide[bits], operand);
    return;
  }
  const { c } = x;
  c.if(
    isProtected(x).ne(0).and(isVirtual8086(x).eqz()),
    () => {
      c.if(
        in64BitMode(x),
        () => x.invoke(wide[bits], operand),
        () => x.invoke(narrow[bits], operand),
      );
    },
    real,
  );
}

/** IRET of a constant operand size; `long` where it is known to run in 64-bit mode. `next` is the RIP behind it. */
export function emitIret(x: Env, bits: 16 | 32 | 64, long: boolean, next: Val): void {
  returnByMode(x, bits, long, IRET, next, () => x.invoke(iretReal, bits));
}

/** RET far in protected mode; bytes of parameters to drop. */
function protectedRetf(bits: 16 | 32 | 64, wide: boolean): Helper {
  return faultingHelper(`retf${bits}${wide ? "Wide" : ""}`, ["i32"], [], (x, dropped) => {
    const { c } = x;
    const size = bits / 8;
    const ip = readStack(x, bits, 0, wide);
    const cs = c.let(readStack(x, bits, size, wide).wrap().and(0xffff));
    const [code, codeAt] = x.callMany(returnCode, cs);
    const attr = c.let(attrOf(code));
    const to64 = c.let(is64BitCode(x, attr));
    c.if(
      cs.and(3).gtU(x.get(CPL)),
      () => {
        const pointer = readStack(x, bits, c.let(dropped.add(2 * size)), wide);
        const ss = c.let(
          readStack(x, bits, c.let(dropped.add(3 * size)), wide)
            .wrap()
            .and(0xffff),
        );
        const stack = x.call(returnStack, ss, cs.and(3), to64);
        checkTarget(x, ip, to64, code);
        markAccessed(x, codeAt, attr);
        loadOuter(x, cs, code, ss, stack, c.let(pointer.add(dropped.zx())), wide);
      },
      () => {
        checkTarget(x, ip, to64, code);
        markAccessed(x, codeAt, attr);
        x.invoke(adjustStack, dropped.add(2 * size));
        x.invoke(setSegment, SREG.CS, cs, code);
      },
    );
    x.put(RIP, ip);
    x.invoke(updateMode);
    x.done();
  });
}

/** RET far in real-address and virtual-8086 mode: operand size in bits, bytes of parameters to drop. */
const retfReal = faultingHelper("retfReal", ["i32", "i32"], [], (x, bits, dropped) => {
  const { c } = x;
  const ip = c.local("i64", i64(0));
  const cs = c.local("i64", i64(0));
  const size = c.let(bits.shrU(3));
  const pop = (width: 16 | 32): void => {
    c.set(ip, readStack(x, width, 0, false));
    c.set(cs, readStack(x, width, size, false));
  };
  c.if(
    bits.eq(16),
    () => pop(16),
    () => pop(32),
  );
  x.raiseIf(ip.gtU(0xffffn), VECTOR.GP, 0);
  x.invoke(adjustStack, size.shl(1).add(dropped));
  const selector = c.let(cs.wrap().and(0xffff));
  setPlainSegment(x, i32(SREG.CS), selector);
  x.put(RIP, ip);
  x.invoke(updateMode);
  x.done();
});

const RETF = returnForms(protectedRetf);

/** RET far of a constant operand size, dropping `bytes` of parameters. */
export function emitRetf(x: Env, bits: 16 | 32 | 64, long: boolean, bytes: Val): void {
  returnByMode(x, bits, long, RETF, bytes, () => x.invoke(retfReal, bits, bytes));
}
