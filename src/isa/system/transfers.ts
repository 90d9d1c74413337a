// The encodings of far jumps, calls and returns, and of the fast system calls (SDM Vol. 2A, 2B).

import { i32, i64, select, type Val } from "../../wasm/value.ts";
import { faultingHelper, updateMode } from "../helper.ts";
import type { InstructionGroup } from "../instruction.ts";
import { in64BitMode, notCanonical } from "../segmentation.ts";
import type { Env, Sem } from "../semantics.ts";
import {
  CPL,
  DEBUG_TRAPS,
  EFER,
  EFER_BIT,
  FLAG,
  GPR,
  LSTAR,
  RFLAGS,
  RIP,
  SEG_ATTR,
  type SegmentFields,
  SFMASK,
  STAR,
  SYSENTER_CS,
  SYSENTER_EIP,
  SYSENTER_ESP,
  VECTOR,
} from "../state.ts";
import { callFar, jumpFar } from "./far.ts";
import { CS, isLongMode, isProtected, requireCpl0, SS } from "./modes.ts";
import { emitRetf } from "./returns.ts";
import { RFLAGS_BITS, setRflags } from "./rflags.ts";

type Wide = 16 | 32 | 64;

function directFar(x: Sem, target: typeof jumpFar): void {
  const selector = x.c.let(x.immediate().and(0xffff));
  x.invoke(target, selector, x.read(0).zx(), x.opsize / 8, x.nextRip());
  x.continueAtRip();
}

function indirectFar(x: Sem, target: typeof jumpFar): void {
  const size = x.opsize / 8;
  const offset = x.load(x.opsize, x.addressAt(0, 0, size));
  const selector = x.load(16, x.addressAt(0, size, 2));
  x.invoke(target, selector, offset.zx(), size, x.nextRip());
  x.continueAtRip();
}

/** Access rights of the flat segments that the fast system calls load (SDM Vol. 2B SYSCALL). */
const FLAT = { CODE64: 0xa09b, CODE32: 0xc09b, DATA: 0xc093 } as const;
const DPL3 = 3 << SEG_ATTR.DPL_SHIFT;

function setFlat(x: Env, segment: SegmentFields, selector: Val, attr: Val | number): void {
  x.put(segment.selector, selector);
  x.put(segment.base, 0n);
  x.put(segment.limit, -1);
  x.put(segment.attr, attr);
}

const SINGLE_STEP = 1 << 14;

/** SYSCALL: RIP of the next instruction. */
const syscall = faultingHelper("syscall", ["i64"], [], (x, next) => {
  const { c } = x;
  x.raiseIf(x.get(EFER).and(EFER_BIT.SCE).eqz().or(in64BitMode(x).eqz()), VECTOR.UD);
  const flags = c.let(x.rflags().and(~FLAG.RF));
  x.setGpr(GPR.RCX, 64, next);
  x.setGpr(GPR.R11, 64, flags.zx());
  x.put(RIP, x.get(LSTAR));
  const kept = c.let(flags.and(x.get(SFMASK).wrap().not()));
  setRflags(x, kept, RFLAGS_BITS);
  // Where IA32_FMASK clears TF the system call is not stepped.
  x.put(DEBUG_TRAPS, x.get(DEBUG_TRAPS).and(select(kept.and(FLAG.TF), i32(-1), ~SINGLE_STEP)));
  const selector = c.let(x.get(STAR).shrU(32).wrap().and(0xfffc));
  setFlat(x, CS, selector, FLAT.CODE64);
  setFlat(x, SS, selector.add(8).and(0xffff), FLAT.DATA);
  x.put(CPL, 0);
  x.invoke(updateMode);
  x.done();
});

/** SYSRET: 1 for 64-bit operand size. */
const sysret = faultingHelper("sysret", ["i32"], [], (x, wide) => {
  const { c } = x;
  x.raiseIf(x.get(EFER).and(EFER_BIT.SCE).eqz().or(in64BitMode(x).eqz()), VECTOR.UD);
  requireCpl0(x);
  const rcx = c.let(x.gpr(GPR.RCX, 64));
  const target = c.let(select(wide, rcx, rcx.and(0xffffffffn)));
  x.raiseIf(notCanonical(target), VECTOR.GP, 0);
  setRflags(x, x.gpr(GPR.R11, 32).and(~(FLAG.RF | FLAG.VM)), RFLAGS_BITS);
  const base = c.let(x.get(STAR).shrU(48).wrap());
  const code = base.add(wide.shl(4));
  setFlat(x, CS, c.let(code.or(3).and(0xffff)), c.let(select(wide, i32(FLAT.CODE64), FLAT.CODE32)).or(DPL3));
  setFlat(x, SS, base.add(8).or(3).and(0xffff), FLAT.DATA | DPL3);
  x.put(CPL, 3);
  x.put(RIP, target);
  x.invoke(updateMode);
  x.done();
});

const sysenter = faultingHelper("sysenter", [], [], (x) => {
  const { c } = x;
  const base = c.let(x.get(SYSENTER_CS).wrap().and(0xfffc));
  x.raiseIf(isProtected(x).eqz().or(base.eqz()), VECTOR.GP, 0);
  const long = c.let(isLongMode(x).ne(0));
  const mask = c.let(select(long, i64(-1), i64(0xffffffffn)));
  x.put(RFLAGS, x.get(RFLAGS).and(~(FLAG.VM | FLAG.IF | FLAG.RF)));
  x.setGpr(GPR.RSP, 64, x.get(SYSENTER_ESP).and(mask));
  x.put(RIP, x.get(SYSENTER_EIP).and(mask));
  setFlat(x, CS, base, c.let(select(long, i32(FLAT.CODE64), FLAT.CODE32)));
  setFlat(x, SS, base.add(8).and(0xffff), FLAT.DATA);
  x.put(CPL, 0);
  x.invoke(updateMode);
  x.done();
});

/** SYSEXIT: 1 for 64-bit operand size. */
const sysexit = faultingHelper("sysexit", ["i32"], [], (x, wide) => {
  const { c } = x;
  const base = c.let(x.get(SYSENTER_CS).wrap().and(0xfffc));
  x.raiseIf(isProtected(x).eqz().or(base.eqz()).or(x.get(CPL).ne(0)), VECTOR.GP, 0);
  const mask = c.let(select(wide, i64(-1), i64(0xffffffffn)));
  const target = c.let(x.gpr(GPR.RDX, 64).and(mask));
  const pointer = c.let(x.gpr(GPR.RCX, 64).and(mask));
  x.raiseIf(notCanonical(target).or(notCanonical(pointer)), VECTOR.GP, 0);
  const code = c.let(base.add(16).add(wide.shl(4)));
  setFlat(x, CS, code.or(3).and(0xffff), c.let(select(wide, i32(FLAT.CODE64), FLAT.CODE32)).or(DPL3));
  setFlat(x, SS, code.add(8).or(3).and(0xffff), FLAT.DATA | DPL3);
  x.setGpr(GPR.RSP, 64, pointer);
  x.put(RIP, target);
  x.put(CPL, 3);
  x.invoke(updateMode);
  x.done();
});

function retf(x: Sem, bytes: Val): void {
  emitRetf(x, x.opsize as Wide, x.long, bytes);
  x.continueAtRip();
}

/** A task switch saves the flags, so that far transfers read them. */
export const TRANSFERS: InstructionGroup = [
  { name: "JMP", rows: ["EA: Ap; i64, end"], reads: "OSZAPC", semantics: (x) => directFar(x, jumpFar) },
  { name: "JMP", rows: ["FF /5: Mp; end"], reads: "OSZAPC", semantics: (x) => indirectFar(x, jumpFar) },
  { name: "CALL", rows: ["9A: Ap; i64, end, stack"], reads: "OSZAPC", semantics: (x) => directFar(x, callFar) },
  { name: "CALL", rows: ["FF /3: Mp; end, stack"], reads: "OSZAPC", semantics: (x) => indirectFar(x, callFar) },
  { name: "RET", rows: ["CB; end, stack"], semantics: (x) => retf(x, i32(0)) },
  { name: "RET", rows: ["CA: Iw; end, stack"], semantics: (x) => retf(x, x.c.let(x.read(0))) },
  {
    name: "SYSCALL",
    rows: ["0F 05; o64, end"],
    feature: "syscall",
    reads: "OSZAPC",
    writes: "OSZAPC",
    semantics: (x) => {
      x.invoke(syscall, x.nextRip());
      x.continueAtRip();
    },
  },
  {
    name: "SYSRET",
    rows: ["0F 07; o64, end"],
    feature: "syscall",
    writes: "OSZAPC",
    semantics: (x) => {
      x.invoke(sysret, x.opsize === 64 ? 1 : 0);
      x.continueAtRip();
    },
  },
  {
    name: "SYSENTER",
    rows: ["0F 34; end"],
    feature: "sep",
    semantics: (x) => {
      x.invoke(sysenter);
      x.continueAtRip();
    },
  },
  {
    name: "SYSEXIT",
    rows: ["0F 35; end"],
    feature: "sep",
    semantics: (x) => {
      x.invoke(sysexit, x.opsize === 64 ? 1 : 0);
      x.continueAtRip();
    },
  },
];
