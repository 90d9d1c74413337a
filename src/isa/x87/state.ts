// The x87 register stack, its status and its exceptions: what every x87 instruction shares (Intel SDM Vol. 1 8.1, 8.4, 8.5, 8.7; Vol. 3A 2.5).

import type { Local } from "../../wasm/code.ts";
import { i32, i64, type Operand, select, type Val } from "../../wasm/value.ts";
import { ANOMALY } from "../anomaly.ts";
import { anomaly, faultingHelper, helper } from "../helper.ts";
import { in64BitMode } from "../segmentation.ts";
import type { Env, Sem } from "../semantics.ts";
import { CR0, CR0_BIT, FCS, FCW, FDP, FDS, FIP, FSW, FTW, SEGMENTS, SREG, VECTOR, X87_BASE } from "../state.ts";
import { recordOpcode } from "./opcode.ts";

/** Status word (SDM Vol. 1 8.1.3). IE to PE are also the places of the masks in the control word. */
export const STATUS = {
  IE: 1 << 0,
  DE: 1 << 1,
  ZE: 1 << 2,
  OE: 1 << 3,
  UE: 1 << 4,
  PE: 1 << 5,
  SF: 1 << 6,
  ES: 1 << 7,
  C0: 1 << 8,
  C1: 1 << 9,
  C2: 1 << 10,
  TOP: 7 << 11,
  C3: 1 << 14,
  B: 1 << 15,
} as const;
export const TOP_SHIFT = 11;
export const EXCEPTIONS = 0x3f;
export const CONDITION_CODES = STATUS.C0 | STATUS.C1 | STATUS.C2 | STATUS.C3;
/** Exceptions found before the result is computed: unmasked, they leave the destination as it was (SDM Vol. 1 8.5). */
export const BEFORE_RESULT = STATUS.IE | STATUS.DE | STATUS.ZE;
/** Stack underflow and overflow: an invalid operation with the stack-fault flag, and C1 telling which (SDM Vol. 1 8.5.1.1). */
export const STACK_UNDERFLOW = STATUS.IE | STATUS.SF;
export const STACK_OVERFLOW = STATUS.IE | STATUS.SF | STATUS.C1;

/** The default NaN, "QNaN floating-point indefinite" (SDM Vol. 1 table 4-3). */
export const INDEFINITE_SIG = i64(3n << 62n);
export const INDEFINITE_SE = i32(0xffff);

/** Two values as a register holds them: 64-bit significand; sign and biased exponent in 16 bits. */
export interface Extended {
  readonly sig: Val;
  readonly se: Val;
}

/** The bit numbers of ES and B are those of an i32 0 or 1 times this. */
const SUMMARY = STATUS.ES | STATUS.B;

// Registers

export function top(x: Env): Val {
  return x.get(FSW).bits(TOP_SHIFT, 3);
}

/** Physical number of ST(index), i32. */
export function physical(x: Env, index: Operand): Val {
  return top(x).add(index).and(7);
}

/** 1 where ST(index) is not empty. */
export function filled(x: Env, index: Operand): Val {
  return x.get(FTW).shrU(physical(x, index)).and(1);
}

export function empty(x: Env, index: Operand): Val {
  return filled(x, index).xor(1);
}

/** The contents of ST(index), fixed. */
export function readStack(x: Env, index: Operand): Extended {
  const at = x.c.let(physical(x, index).shl(4));
  return { sig: x.c.let(x.cpu.ld64(at, X87_BASE)), se: x.c.let(x.cpu.ld32(at, X87_BASE + 8)) };
}

/** Writes ST(index) without looking at its tag, which becomes "not empty". */
export function writeStack(x: Env, index: Operand, sig: Operand, se: Val): void {
  const number = x.c.let(physical(x, index));
  const at = x.c.let(number.shl(4));
  x.c.st64(x.cpu, at, sig, X87_BASE);
  x.c.st64(x.cpu, at, se.zx(), X87_BASE + 8);
  x.put(FTW, x.get(FTW).or(i32(1).shl(number)));
}

/** Adds to TOP, modulo 8. */
export function moveTop(x: Env, by: Operand): void {
  const status = x.c.let(x.get(FSW));
  const moved = status.bits(TOP_SHIFT, 3).add(by).and(7).shl(TOP_SHIFT);
  x.put(FSW, status.and(~STATUS.TOP).or(moved));
}

/** Marks ST(0) empty and increments TOP. */
export function pop(x: Env): void {
  x.put(FTW, x.get(FTW).and(i32(1).shl(top(x)).not()));
  moveTop(x, 1);
}

/** Pops `count` (0 to 2) registers. */
export function popMany(x: Env, count: Val): void {
  x.c.if(count, () => {
    pop(x);
    x.c.if(count.eq(2), () => pop(x));
  });
}

// Status and exceptions

/** Sets ES and B from the flags and masks as they now are. */
export function summarise(x: Env): void {
  const pending = x.get(FSW).and(x.get(FCW).not()).and(EXCEPTIONS).ne(0);
  x.put(FSW, x.get(FSW).and(~SUMMARY).or(pending.mul(SUMMARY)));
}

/** Clears C1 and the condition codes in `cleared`, then adds flags (exceptions, SF, condition codes). Gives the unmasked exceptions. */
export const x87Status = helper("x87Status", ["i32", "i32"], ["i32"], (x, flags, cleared) => {
  const unmasked = x.c.let(flags.and(x.get(FCW).not()).and(EXCEPTIONS));
  const status = x.get(FSW).and(cleared.or(STATUS.C1).not());
  x.put(FSW, status.or(flags).or(unmasked.ne(0).mul(SUMMARY)));
  x.c.if(unmasked, () => x.invoke(recordOpcode), undefined, "unlikely");
  x.done(unmasked);
});

/** Reports flags of an instruction that leaves the condition codes but C1; gives the unmasked exceptions. */
export function report(x: Env, flags: Operand): Local {
  return x.call(x87Status, flags, 0);
}

/** Where a denormal operand is unmasked the operation goes no further, so later exceptions and C1 are not seen. */
export function withDenormal(x: Env, flags: Val): Val {
  const fixed = x.c.let(flags);
  const stops = fixed.and(STATUS.DE).and(x.get(FCW).not());
  return x.c.let(select(stops, fixed.and(BEFORE_RESULT), fixed));
}

/** (index, sig, se, flags, pops): the end of an instruction with a register as destination. */
export const x87Result = helper(
  "x87Result",
  ["i32", "i64", "i32", "i32", "i32"],
  [],
  (x, index, sig, se, flags, pops) => {
    const unmasked = report(x, withDenormal(x, flags));
    x.c.if(unmasked.and(BEFORE_RESULT).eqz(), () => {
      writeStack(x, index, sig, se);
      popMany(x, pops);
    });
    x.done();
  },
);

/** (sig, se, flags): the end of an instruction that pushes a value. Flags must not say that the stack was full. */
export const x87Push = helper("x87Push", ["i64", "i32", "i32"], [], (x, sig, se, flags) => {
  const { c } = x;
  c.if(
    filled(x, 7),
    () => {
      const unmasked = report(x, STACK_OVERFLOW);
      c.if(unmasked.eqz(), () => {
        moveTop(x, 7);
        writeStack(x, 0, 3n << 62n, INDEFINITE_SE);
      });
      x.done();
    },
    undefined,
    "unlikely",
  );
  // Loading a denormal completes even where its exception is unmasked.
  const unmasked = report(x, flags);
  c.if(unmasked.and(STATUS.IE).eqz(), () => {
    moveTop(x, 7);
    writeStack(x, 0, sig, se);
  });
  x.done();
});

/** (flags, stored, pops): the end of an instruction that stored to memory; nothing is popped where nothing was stored. */
export const x87Stored = helper("x87Stored", ["i32", "i32", "i32"], [], (x, flags, stored, pops) => {
  report(x, flags);
  x.c.if(stored, () => popMany(x, pops));
  x.done();
});

// Start of an instruction

/** Raises #MF where an unmasked exception waits. With CR0.NE = 0 it would be told by an interrupt that this machine does not wire
 *  (SDM Vol. 1 8.7.2): it is counted then. */
export function waitX87(x: Env): void {
  x.c.if(x.get(FSW).and(STATUS.ES), () => {
    x.raiseIf(x.get(CR0).and(CR0_BIT.NE).ne(0), VECTOR.MF);
    x.invoke(anomaly, ANOMALY.UNSUPPORTED, VECTOR.MF);
  });
}

const x87Unusable = faultingHelper("x87Unusable", [], [], (x) => {
  x.raiseIf(
    x
      .get(CR0)
      .and(CR0_BIT.EM | CR0_BIT.TS)
      .ne(0),
    VECTOR.NM,
  );
  waitX87(x);
  x.done();
});

/** #NM where the x87 FPU is emulated or switched away. First in each control instruction that does not wait (FNINIT, FNSTSW, ...). */
export function useX87WithoutWait(x: Sem): void {
  x.raiseIf(
    x
      .get(CR0)
      .and(CR0_BIT.EM | CR0_BIT.TS)
      .ne(0),
    VECTOR.NM,
  );
}

/** The same, and #MF where an unmasked exception waits. First in all other instructions. */
export function useX87(x: Sem): void {
  const disabled = x.get(CR0).and(CR0_BIT.EM | CR0_BIT.TS);
  x.c.if(disabled.or(x.get(FSW).and(STATUS.ES)), () => x.invoke(x87Unusable), undefined, "unlikely");
}

/** (rip, linear, segment): where the last instruction's memory operand was; as an offset, so without the segment's base. */
const x87NoteData = helper("x87NoteData", ["i64", "i64", "i32"], [], (x, rip, linear, segment) => {
  const { c } = x;
  const stride = SEGMENTS[1].base.offset - SEGMENTS[0].base.offset;
  const base = c.let(x.cpu.ld64(segment.mul(stride), SEGMENTS[0].base.offset));
  x.put(FIP, rip);
  x.put(FCS, x.get(SEGMENTS[SREG.CS].selector));
  x.put(FDS, x.cpu.ld32(segment.mul(stride), SEGMENTS[0].selector.offset));
  c.if(
    in64BitMode(x),
    () => x.put(FDP, linear.sub(select(segment.geU(SREG.FS), base, i64(0)))),
    () => x.put(FDP, linear.sub(base).and(0xffffffffn)),
  );
  x.done();
});

/** Notes instruction and operand pointers (SDM Vol. 1 8.1.8). After what can fault, before exceptions are reported. */
export function note(x: Sem, memoryOperand?: Val): void {
  if (memoryOperand !== undefined) {
    x.invoke(x87NoteData, x.rip(), memoryOperand, x.segmentNumber());
    return;
  }
  x.put(FIP, x.rip());
  x.put(FCS, x.get(SEGMENTS[SREG.CS].selector));
}
