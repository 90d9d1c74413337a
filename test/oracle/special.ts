// Instructions whose operands need more than random values to do something worth comparing: counts, addresses in fixed registers,
// branch targets, images of state in memory.

import { GPR } from "../../src/isa/state.ts";
import { randomFcw, randomFsw, randomMxcsr } from "./contents.ts";
import type { Case } from "./generate.ts";
import { extended, integer64 } from "./random.ts";
import { FX, SELECTOR } from "./record.ts";

/** Selectors: null, Linux's descriptors with any RPL, an LDT that is none, beyond the table. */
function selector(k: Case): number {
  const { r } = k;
  if (r.chance(60))
    return r.pick([SELECTOR.CODE_32, SELECTOR.DATA, SELECTOR.CODE_64, SELECTOR.CODE_16, SELECTOR.DATA_16]);
  if (r.chance(60)) return r.pick([0, 0x08, 0x10, 0x18, 0x20, 0x28, 0x30, 0x38, 0x40]) | r.below(4);
  return r.pick([0x2f, 0x04, 0x0c, 0x17, 0x80, 0x83, 0xfff8, 0xffff]);
}

/** The E operand is a selector. */
const takesSelector: Prepare = (k) => {
  // FS and GS are the host's own.
  if (k.plan.row.operands[0]?.kind === "S" && (k.encoding.reg & 6) === 4) k.encoding.reg &= 3;
  return () => {
    const value = selector(k);
    if (k.plan.form === "memory") {
      if (k.target >= 0) k.patchInteger(0, k.target, BigInt(value), 2);
    } else if (!k.pinned.has(k.encoding.rm)) {
      k.setGpr(k.encoding.rm, (k.gpr(k.encoding.rm) & ~0xffffn) | BigInt(value));
    }
  };
};

/** Values one behind the other, each of the operand size. */
function sequence(k: Case, values: readonly bigint[]): Uint8Array {
  const bytes = k.plan.size / 8;
  const content = new Uint8Array(values.length * 8 + 8);
  const view = new DataView(content.buffer);
  values.forEach((value, n) => {
    view.setBigUint64(n * bytes, BigInt.asUintN(64, value), true);
  });
  return content.subarray(0, values.length * bytes);
}

/** A far pointer in memory: offset, then selector. */
function farPointer(k: Case): void {
  const bytes = k.plan.size / 8;
  k.width = bytes + 2;
  if (k.target < 0) return;
  const content = sequence(k, [k.branchTarget(), BigInt(selector(k))]);
  k.patch(0, k.target, content.subarray(0, bytes + 2));
}

const isFar = (k: Case): boolean => k.plan.row.operands[0]?.size === "p";

/** Immediate far pointers; indirect ones get theirs when they have a place. */
function directFar(k: Case): void {
  const bytes = k.plan.size / 8;
  const pointer = sequence(k, [k.branchTarget(), BigInt(selector(k))]);
  k.encoding.immediate = [...pointer.subarray(0, bytes + 2)];
}

const loadFar: Prepare = (k) => {
  k.width = k.plan.size / 8 + 2;
  return () => farPointer(k);
};

const popSegment: Prepare = (k) => {
  pop(k);
  return () => {
    const at = k.gpr(GPR.RSP);
    if (at < 1n << 31n) k.patch(1, Number(at), sequence(k, [BigInt(selector(k))]));
  };
};

const iret: Prepare = (k) => {
  k.pin(GPR.RSP, k.place((k.plan.size / 8) * 5));
  return () => {
    const at = k.gpr(GPR.RSP);
    if (at >= 1n << 31n) return;
    // Not TF: the trap would come in the stopping INT3.
    const flags = k.r.bits64() & 0x254fd5n & ~0x4100n;
    const frame = [
      k.branchTarget(),
      BigInt(selector(k)),
      flags,
      integer64(k.r),
      BigInt(k.r.chance(70) ? SELECTOR.DATA : selector(k)),
    ];
    k.patch(1, Number(at), sequence(k, frame));
  };
};

/** Done after the memory operand has its place and contents. */
type Adjust = () => void;
type Prepare = (k: Case) => Adjust | undefined;

/** A register that holds an address: what the address size ignores is random. */
function pinAddress(k: Case, register: number, address: bigint): void {
  const bits = k.encoding.addressBits;
  const full = k.long ? 64 : 32;
  const above = bits === full ? 0n : (k.r.bits64() >> BigInt(bits)) << BigInt(bits);
  k.pin(register, BigInt.asUintN(bits, address) | above);
}

function strings(k: Case): undefined {
  const { r, plan } = k;
  const bytes = plan.size / 8;
  const repeated = plan.row.prefix === 2 || plan.row.prefix === 3;
  pinAddress(k, GPR.RSI, k.place(bytes));
  pinAddress(k, GPR.RDI, r.chance(20) ? k.gpr(GPR.RSI) + BigInt(r.between(-9, 9)) : k.place(bytes));
  if (repeated) pinAddress(k, GPR.RCX, BigInt(r.chance(15) ? r.below(9000 / bytes) : r.below(20)));
  if (r.chance(40)) k.setGpr(GPR.RAX, 0x0101010101010101n * BigInt(r.below(4)));
  return undefined;
}

function stackWidth(k: Case): number {
  return k.plan.size === 8 ? 8 : k.plan.size / 8;
}

const push: Prepare = (k) => {
  const bytes = stackWidth(k) * (k.plan.row.instruction.name === "PUSHA" ? 8 : 1);
  k.pin(GPR.RSP, k.place(bytes) + BigInt(bytes));
  return undefined;
};

const pop: Prepare = (k) => {
  const bytes = stackWidth(k) * (k.plan.row.instruction.name === "POPA" ? 8 : 1);
  k.pin(GPR.RSP, k.place(bytes));
  return undefined;
};

/** The operand of an indirect branch. */
function indirectTarget(k: Case): void {
  const target = k.branchTarget();
  if (k.plan.form === "memory") {
    if (k.target >= 0) k.patchInteger(0, k.target, target, k.plan.size / 8);
  } else if (!k.pinned.has(k.encoding.rm)) k.setGpr(k.encoding.rm, target);
}

function relativeTarget(k: Case): void {
  const { r, plan, encoding } = k;
  const operand = plan.row.operands.find(({ kind }) => kind === "J");
  if (operand === undefined) return;
  // Never onto the instruction itself, which would not end.
  if (operand.size === "b") encoding.branchBy = r.chance(50) ? r.below(128) : -16 - r.below(113);
  else if (plan.size === 16) encoding.branchBy = r.chance(50) ? r.below(0x7fff) : -16 - r.below(0x7ff0);
  else {
    const target = k.branchTarget();
    encoding.branchTo = target < 1n << 31n ? Number(target) : k.codeStart + 8;
  }
}

const jump: Prepare = (k) => {
  if (k.plan.row.operands[0]?.kind === "A") directFar(k);
  if (isFar(k)) return loadFar(k);
  relativeTarget(k);
  return () => {
    if (k.plan.row.modrm) indirectTarget(k);
  };
};

const call: Prepare = (k) => {
  push(k);
  return jump(k);
};

const ret: Prepare = (k) => {
  const far = k.plan.row.opcode >= 0xca;
  if (far) k.pin(GPR.RSP, k.place(k.plan.size / 4));
  else pop(k);
  return () => {
    const at = k.gpr(GPR.RSP);
    if (at >= 1n << 31n) return;
    const target = k.branchTarget();
    k.patch(1, Number(at), sequence(k, far ? [target, BigInt(selector(k))] : [target]));
  };
};

const loop: Prepare = (k) => {
  relativeTarget(k);
  const around = k.r.pick([0n, 0n, 1n, 1n, 2n, 0x10000n, 0x10001n, 0x1_0000_0000n, 0x1_0000_0001n]);
  k.pin(GPR.RCX, k.r.chance(80) ? around : integer64(k.r));
  return undefined;
};

const enter: Prepare = (k) => {
  const { r } = k;
  const size = r.chance(80) ? r.below(64) : r.below(0x10000);
  const level = r.chance(50) ? r.below(3) : r.below(70);
  k.encoding.immediate = [size & 0xff, size >> 8, level];
  k.pin(GPR.RBP, k.place(8));
  k.pin(GPR.RSP, k.place(64) + 64n);
  return undefined;
};

const leave: Prepare = (k) => {
  k.pin(GPR.RBP, k.place(stackWidth(k)));
  return undefined;
};

const popf: Prepare = (k) => {
  pop(k);
  return () => {
    const at = k.gpr(GPR.RSP);
    // Not TF: the trap would come in the stopping INT3.
    const image = k.r.bits64() & ~0x100n & (k.r.chance(80) ? 0x244fd5n | 2n : (1n << 64n) - 1n);
    if (at < 1n << 31n) k.patchInteger(1, Number(at), image & ~0x100n, 8);
  };
};

const translateByte: Prepare = (k) => {
  const al = k.gpr(GPR.RAX) & 0xffn;
  pinAddress(k, GPR.RBX, k.place(1) - al);
  k.pinned.add(GPR.RAX);
  return undefined;
};

const bitString: Prepare = (k) => {
  const { r, plan } = k;
  if (plan.form !== "memory" || plan.row.operands[1]?.kind !== "G") {
    if (r.chance(60) && plan.row.operands[1]?.kind === "I") k.encoding.immediate = [r.next() & 0xff];
    return undefined;
  }
  const bits = BigInt(plan.size);
  const wide = r.chance(80) ? BigInt(r.between(-9000, 9000)) : integer64(r) & 0xff_ffff_ffffn;
  const offset = BigInt.asIntN(plan.size, wide);
  const above = plan.size < 64 ? (r.bits64() >> bits) << bits : 0n;
  k.pin(k.encoding.reg, BigInt.asUintN(plan.size, offset) | above);
  k.width = plan.size / 8;
  const base = k.place(k.width) - (offset - (((offset % bits) + bits) % bits)) / 8n;
  if (base >= 0n && base < 1n << 31n) k.target = Number(base);
  return undefined;
};

const compareExchange: Prepare = (k) => () => {
  if (!k.r.chance(50)) return;
  if (k.plan.form === "register") {
    if (!k.pinned.has(k.encoding.rm)) k.setGpr(k.encoding.rm, k.gpr(GPR.RAX));
  } else if (k.target >= 0) k.patchInteger(0, k.target, k.gpr(GPR.RAX), k.width);
};

const compareExchangePair: Prepare = (k) => {
  k.width = k.plan.size / 4;
  return () => {
    if (k.target < 0 || !k.r.chance(60)) return;
    const content = new Uint8Array(16);
    const view = new DataView(content.buffer);
    view.setBigUint64(0, k.gpr(GPR.RAX), true);
    view.setBigUint64(k.plan.size / 8, k.gpr(GPR.RDX), true);
    k.patch(0, k.target, content.subarray(0, k.width));
  };
};

/** Dividends whose quotient has a chance to fit. */
const divide: Prepare = (k) => () => {
  const { r } = k;
  if (!r.chance(75) || k.pinned.has(GPR.RDX) || k.pinned.has(GPR.RAX)) return;
  if (k.plan.size === 8) {
    k.setGpr(GPR.RAX, (k.gpr(GPR.RAX) & ~0xff00n) | BigInt(r.pick([0, 0, 1, r.below(64), 0xff]) << 8));
  } else {
    const top = BigInt(k.plan.size - 1);
    const negative = (k.gpr(GPR.RAX) >> top) & 1n;
    k.setGpr(GPR.RDX, r.pick([0n, negative === 1n ? (1n << 64n) - 1n : 0n, 1n, BigInt(r.below(100))]));
  }
};

const shift: Prepare = (k) => {
  if (k.r.chance(70)) k.setGpr(GPR.RCX, (k.gpr(GPR.RCX) & ~0xffn) | BigInt(k.r.below(80)));
  if (k.plan.row.operands.at(-1)?.kind === "I" && k.r.chance(80)) k.encoding.immediate = [k.r.below(80)];
  return undefined;
};

const bound: Prepare = (k) => {
  k.width = k.plan.size / 4;
  return () => {
    if (k.target < 0 || !k.r.chance(75)) return;
    const bytes = k.plan.size / 8;
    const index = k.gpr(k.encoding.reg);
    const low = index - BigInt(k.r.between(-1, 3));
    const high = index + BigInt(k.r.between(-1, 3));
    const content = new Uint8Array(16);
    const view = new DataView(content.buffer);
    view.setBigUint64(0, BigInt.asUintN(64, low), true);
    view.setBigUint64(bytes, BigInt.asUintN(64, high), true);
    k.patch(0, k.target, content.subarray(0, 2 * bytes));
  };
};

const loadMxcsr: Prepare = (k) => () => {
  if (k.target < 0) return;
  // Bit 17 is AMD's MXCSR.MM, reserved for Intel.
  const value = k.r.chance(80) ? randomMxcsr(k.r) : k.r.next() & ~0x20000;
  k.patchInteger(0, k.target, BigInt(value >>> 0), 4);
};

const loadControlWord: Prepare = (k) => () => {
  if (k.target >= 0 && k.r.chance(70)) k.patchInteger(0, k.target, BigInt(randomFcw(k.r)), 2);
};

/** An x87 environment as FNSTENV writes it (SDM Vol. 1 8.1.10), with 80-bit registers behind it. */
function environment(registers: boolean): Prepare {
  return (k) => {
    const narrow = k.plan.size === 16;
    const head = narrow ? 14 : 28;
    k.width = head + (registers ? 80 : 0);
    if (k.plan.row.instruction.name.startsWith("FN")) return undefined;
    return () => {
      if (k.target < 0) return;
      const { r } = k;
      const content = new Uint8Array(k.width);
      const view = new DataView(content.buffer);
      const step = narrow ? 2 : 4;
      const fcw = randomFcw(r);
      for (let at = 0; at < head; at += 2) view.setUint16(at, r.next() & 0xffff, true);
      view.setUint16(0, fcw, true);
      view.setUint16(step, randomFsw(r, fcw), true);
      for (let n = 0; registers && n < 8; n++) {
        const [significand, top] = extended(r);
        view.setBigUint64(head + n * 10, significand, true);
        view.setUint16(head + n * 10 + 8, top, true);
      }
      k.patch(1, k.target, content);
    };
  };
}

function fxImage(k: Case): Uint8Array {
  const { r } = k;
  const image = new Uint8Array(576);
  for (let at = 0; at < 512; at++) image[at] = r.next();
  const view = new DataView(image.buffer);
  const fcw = randomFcw(r);
  view.setUint16(FX.FCW, fcw, true);
  view.setUint16(FX.FSW, randomFsw(r, fcw), true);
  view.setBigUint64(FX.FIP, r.bits64() & 0x7fff_ffff_ffffn, true);
  view.setBigUint64(FX.FDP, r.bits64() & 0x7fff_ffff_ffffn, true);
  view.setUint32(FX.MXCSR, r.chance(90) ? randomMxcsr(r) : r.next() & ~0x20000, true);
  for (let n = 0; n < 8; n++) {
    const [significand, top] = extended(r);
    view.setBigUint64(FX.ST + n * 16, significand, true);
    view.setUint16(FX.ST + n * 16 + 8, top, true);
  }
  return image;
}

/** An address of that alignment, mostly. */
function alignedTarget(k: Case, alignment: number): void {
  if (k.r.chance(85)) {
    const at = k.place(k.width);
    k.target = at < 1n << 32n ? Number(at) & -alignment : -1;
  }
}

function fxState(restore: boolean): Prepare {
  return (k) => {
    k.width = 512;
    alignedTarget(k, 16);
    return restore
      ? () => {
          if (k.target >= 0) k.patch(1, k.target, fxImage(k).subarray(0, 512));
        }
      : undefined;
  };
}

function xState(restore: boolean): Prepare {
  return (k) => {
    const { r } = k;
    k.width = 576;
    alignedTarget(k, 64);
    // Only the components that the guest's XCR0 names.
    k.pin(GPR.RAX, BigInt(r.below(4)) | (k.gpr(GPR.RAX) & ~0xffffffffn));
    k.pin(GPR.RDX, k.gpr(GPR.RDX) & ~0xffffffffn);
    if (!restore) return undefined;
    return () => {
      if (k.target < 0) return;
      const image = fxImage(k);
      const view = new DataView(image.buffer);
      image[512] = r.below(4);
      if (r.chance(3)) image[519] = 1 << r.below(8);
      if (r.chance(3)) view.setBigUint64(528, integer64(r), true);
      if (r.chance(40)) {
        view.setBigUint64(520, (1n << 63n) | BigInt(r.below(4)), true);
        if (r.chance(80)) image[520] |= image[512];
      }
      k.patch(1, k.target, image);
    };
  };
}

const maskedStore: Prepare = (k) => {
  pinAddress(k, GPR.RDI, k.place(k.plan.row.operands[0]?.size === "x" ? 16 : 8));
  return undefined;
};

function width(bytes: number): Prepare {
  return (k) => {
    k.width = bytes;
    return undefined;
  };
}

const BY_NAME: { readonly [name: string]: Prepare } = {
  CALL: call,
  RET: ret,
  JMP: jump,
  Jcc: jump,
  JCXZ: loop,
  LOOP: loop,
  LOOPE: loop,
  LOOPNE: loop,
  ENTER: enter,
  LEAVE: leave,
  PUSH: push,
  PUSHA: push,
  PUSHF: push,
  POP: pop,
  POPA: pop,
  POPF: popf,
  XLAT: translateByte,
  BT: bitString,
  BTS: bitString,
  BTR: bitString,
  BTC: bitString,
  CMPXCHG: compareExchange,
  CMPXCHG8B: compareExchangePair,
  CMPXCHG16B: compareExchangePair,
  DIV: divide,
  IDIV: divide,
  BOUND: bound,
  LDMXCSR: loadMxcsr,
  FLDCW: loadControlWord,
  FLDENV: environment(false),
  FNSTENV: environment(false),
  FRSTOR: environment(true),
  FNSAVE: environment(true),
  FXSAVE: fxState(false),
  FXRSTOR: fxState(true),
  XSAVE: xState(false),
  XSAVEOPT: xState(false),
  XSAVEC: xState(false),
  XRSTOR: xState(true),
  MASKMOVQ: maskedStore,
  MASKMOVDQU: maskedStore,
  IRET: iret,
  LAR: takesSelector,
  LSL: takesSelector,
  VERR: takesSelector,
  VERW: takesSelector,
  LDS: loadFar,
  LES: loadFar,
  LSS: loadFar,
  FBLD: width(10),
  FBSTP: width(10),
  ROL: shift,
  ROR: shift,
  RCL: shift,
  RCR: shift,
  SHL: shift,
  SHR: shift,
  SAR: shift,
  SHLD: shift,
  SHRD: shift,
};

/** Sets registers that the instruction uses implicitly; what is given is to be called when the memory operand has its contents. */
export function prepare(k: Case): Adjust | undefined {
  const { row } = k.plan;
  if (row.opcodes === 16) k.encoding.condition = k.r.below(16);
  if (row.options.has("string")) return strings(k);
  const special = BY_NAME[row.instruction.name];
  if (row.operands[0]?.kind === "S") return takesSelector(k);
  if (row.map === 0 && [0x07, 0x17, 0x1f].includes(row.opcode)) return popSegment(k);
  if (special !== undefined) return special(k);
  if (row.map === 0 && row.opcode === 0xdb && row.operands[0]?.kind === "M" && row.operands[0].size === "")
    k.width = 10;
  return undefined;
}
