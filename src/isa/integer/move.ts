// Data movement between registers and memory, sign and zero extension, flags moves, hints and fences
// (SDM Vol. 2A-2B: MOV to XLAT by name; Vol. 2D A.3 for the reserved NOP space).

import { i32, select, type Val } from "../../wasm/value.ts";
import { pause } from "../helper.ts";
import type { Instruction, InstructionGroup } from "../instruction.ts";
import { addressMask, segmentAddress } from "../segmentation.ts";
import type { Bits, Sem } from "../semantics.ts";
import { ARITHMETIC_FLAGS, FLAG, GPR, RFLAGS, VECTOR } from "../state.ts";

/** Zero extension to an operand of `bits` bits. */
export function zeroExtendTo(bits: Bits | 128, value: Val): Val {
  return bits === 64 ? value.zx() : value;
}

/** Sign extension from a narrower operand to one of `bits` bits. */
function signExtendTo(bits: Bits | 128, from: Bits | 128, value: Val): Val {
  const extended = from === 8 || from === 16 ? value.extend(from) : value;
  return bits === 64 ? extended.sx() : extended;
}

function swapBytes32(value: Val): Val {
  return value.rotl(8).and(0x00ff00ff).or(value.rotr(8).and(0xff00ff00));
}

/** The bytes of an operand in reverse order. BSWAP of 16 bits is undefined; processors give zero, which the callers see to. */
function swapBytes(x: Sem, bits: Bits | 128, value: Val): Val {
  if (bits === 16) return value.shl(8).or(value.shrU(8)).and(0xffff);
  if (bits === 32) return swapBytes32(value);
  const low = x.c.let(value.wrap());
  const high = x.c.let(value.shrU(32).wrap());
  return swapBytes32(low).zx().shl(32).or(swapBytes32(high).zx());
}

const MOVES: InstructionGroup = [
  {
    name: "MOV",
    rows: [
      "88 /r: Eb, Gb",
      "89 /r: Ev, Gv",
      "8A /r: Gb, Eb",
      "8B /r: Gv, Ev",
      "A0: AL, Ob",
      "A1: rAX, Ov",
      "A2: Ob, AL",
      "A3: Ov, rAX",
      "B0+r: Zb, Ib",
      "B8+r: Zv, Iv",
      "C6 /0: Eb, Ib",
      "C7 /0: Ev, Iz",
    ],
    hot: true,
    semantics: (x) => x.write(0, x.read(1)),
  },
  {
    name: "MOVZX",
    rows: ["0F B6 /r: Gv, Eb", "0F B7 /r: Gv, Ew"],
    hot: true,
    semantics: (x) => x.write(0, zeroExtendTo(x.bits(0), x.read(1))),
  },
  {
    name: "MOVSX",
    rows: ["0F BE /r: Gv, Eb", "0F BF /r: Gv, Ew"],
    hot: true,
    semantics: (x) => x.write(0, signExtendTo(x.bits(0), x.bits(1), x.read(1))),
  },
  {
    name: "MOVSXD",
    rows: ["63 /r: Gv, Ez ; o64"],
    hot: true,
    semantics: (x) => x.write(0, signExtendTo(x.bits(0), x.bits(1), x.read(1))),
  },
  {
    name: "LEA",
    rows: ["8D /r: Gv, M"],
    hot: true,
    semantics: (x) => x.write(0, x.effectiveAddress(1)),
  },
  {
    name: "XCHG",
    rows: ["86 /r: Eb, Gb", "87 /r: Ev, Gv"],
    lock: true,
    // SDM Vol. 3A 9.1.2.1
    alwaysLocked: true,
    semantics: (x) => {
      const source = x.read(1);
      x.modify(
        0,
        (old) => {
          const fixed = x.c.let(old);
          x.write(1, fixed);
          return source;
        },
        () => ({ op: "xchg", operand: source }),
      );
    },
  },
  {
    // 90 is XCHG with the accumulator itself, and as NOP clears no upper half (SDM Vol. 2B NOP); with REX.B it exchanges R8.
    name: "XCHG",
    rows: ["90+r: Zv, rAX"],
    semantics: (x) => {
      const exchange = (): void => {
        const first = x.read(0);
        const second = x.read(1);
        x.write(0, second);
        x.write(1, first);
      };
      if (x.opsize === 32) x.c.if(x.registerNumber(0), exchange);
      else exchange();
    },
  },
  {
    name: "BSWAP",
    rows: ["0F C8+r: Zv"],
    semantics: (x) => x.write(0, x.bits(0) === 16 ? i32(0) : swapBytes(x, x.bits(0), x.read(0))),
  },
  {
    name: "MOVBE",
    rows: ["NP", "66"].flatMap((prefix) => [`${prefix} 0F 38 F0 /r: Gv, Mv`, `${prefix} 0F 38 F1 /r: Mv, Gv`]),
    feature: "movbe",
    semantics: (x) => x.write(0, swapBytes(x, x.bits(1), x.read(1))),
  },
  {
    name: "MOVNTI",
    rows: ["NP 0F C3 /r: My, Gy"],
    feature: "sse2",
    semantics: (x) => x.write(0, x.read(1)),
  },
  {
    name: "XLAT",
    rows: ["D7 ; mem"],
    semantics: (x) => {
      const mask = addressMask(x.addressSize());
      const offset = x.c.let(x.gpr(GPR.RBX, 64).add(x.gpr(GPR.RAX, 8).zx()).and(mask));
      const linear = x.call(segmentAddress, x.segmentNumber(), offset, 1, 0);
      x.setGpr(GPR.RAX, 8, x.load(8, linear));
    },
  },
  {
    name: "CMOVcc",
    feature: "cmov",
    rows: ["0F 40+cc /r: Gv, Ev"],
    reads: "OSZPC",
    hot: true,
    semantics: (x) => {
      const source = x.read(1);
      x.write(0, select(x.condition(x.opcode & 15), source, x.read(0)));
    },
  },
  {
    name: "SETcc",
    rows: ["0F 90+cc /r: Eb"],
    reads: "OSZPC",
    hot: true,
    semantics: (x) => x.write(0, x.condition(x.opcode & 15)),
  },
  {
    name: "CBW",
    rows: ["98: rAX"],
    semantics: (x) => {
      if (x.opsize === 64) x.setGpr(GPR.RAX, 64, x.gpr(GPR.RAX, 32).sx());
      else if (x.opsize === 32) x.setGpr(GPR.RAX, 32, x.gpr(GPR.RAX, 16).extend(16));
      else x.setGpr(GPR.RAX, 16, x.gpr(GPR.RAX, 8).extend(8));
    },
  },
  {
    name: "CWD",
    rows: ["99: rAX"],
    semantics: (x) => {
      const size = x.opsize;
      const value = x.gpr(GPR.RAX, size);
      x.setGpr(GPR.RDX, size, size === 64 ? value.shrS(63) : signExtendTo(32, size, value).shrS(31));
    },
  },
];

/** SF ZF AF PF CF, the flags in AH (SDM Vol. 2A LAHF). */
const AH_FLAGS = ARITHMETIC_FLAGS & 0xff;

const FLAG_MOVES: InstructionGroup = [
  {
    name: "LAHF",
    rows: ["9F"],
    reads: "SZAPC",
    semantics: (x) => {
      const flags = x.arithmeticFlags().and(AH_FLAGS).or(2);
      x.setGpr(GPR.RAX, 16, x.gpr(GPR.RAX, 8).or(flags.shl(8)));
    },
  },
  {
    name: "SAHF",
    rows: ["9E"],
    writes: "SZAPC",
    semantics: (x) => x.setSomeFlags(AH_FLAGS, x.c.let(x.gpr(GPR.RAX, 16).shrU(8))),
  },
  { name: "CMC", rows: ["F5"], reads: "C", writes: "C", semantics: (x) => x.setCarry(x.c.let(x.carry()).xor(1)) },
  { name: "CLC", rows: ["F8"], writes: "C", semantics: (x) => x.setCarry(i32(0)) },
  { name: "STC", rows: ["F9"], writes: "C", semantics: (x) => x.setCarry(i32(1)) },
  { name: "CLD", rows: ["FC"], semantics: (x) => x.put(RFLAGS, x.get(RFLAGS).and(~FLAG.DF)) },
  { name: "STD", rows: ["FD"], semantics: (x) => x.put(RFLAGS, x.get(RFLAGS).or(FLAG.DF)) },
];

const nothing = (): void => {};
const undefinedOpcode = (x: Sem): void => x.raise(VECTOR.UD);

/** Flushes check their address as a one-byte load does (SDM Vol. 2A CLFLUSH). */
function flush(x: Sem): void {
  x.c.drop(x.read(0));
}

const NO_OPERATION: Instruction = {
  // The hint space holds PREFETCHh, ENDBR32, ENDBR64, CLDEMOTE and the shadow-stack and bounds instructions of processors that have them;
  // all are no operation here. 0F 0D is PREFETCHW (SDM Vol. 2B), its other forms hints of the same kind.
  name: "NOP",
  rows: [
    "0F 0D /r: Mb",
    "0F 18 /r: Ev",
    "0F 19 /r: Ev",
    "0F 1A /r: Ev",
    "0F 1B /r: Ev",
    "0F 1C /r: Ev",
    "0F 1D /r: Ev",
    "0F 1E /r: Ev",
    "0F 1F /r: Ev",
  ],
  hot: true,
  semantics: nothing,
};

const HINTS: InstructionGroup = [
  NO_OPERATION,
  { name: "PAUSE", rows: ["F3 90"], semantics: (x) => x.invoke(pause) },
  { name: "LFENCE", rows: ["NP 0F AE /5: Rd"], feature: "sse2", semantics: nothing },
  { name: "MFENCE", rows: ["NP 0F AE /6: Rd"], feature: "sse2", semantics: (x) => x.c.atomicFence() },
  { name: "SFENCE", rows: ["NP 0F AE /7: Rd"], feature: "sse", semantics: nothing },
  { name: "CLFLUSH", rows: ["NP 0F AE /7: Mb"], feature: "clflush", semantics: flush },
  { name: "CLFLUSHOPT", rows: ["66 0F AE /7: Mb"], feature: "clflushopt", semantics: flush },
  { name: "CLWB", rows: ["66 0F AE /6: Mb"], feature: "clwb", semantics: flush },
  { name: "UD0", rows: ["0F FF /r: Gv, Ev"], semantics: undefinedOpcode },
  { name: "UD1", rows: ["0F B9 /r: Gv, Ev"], semantics: undefinedOpcode },
  { name: "UD2", rows: ["0F 0B"], semantics: undefinedOpcode },
];

export const MOVE: InstructionGroup = [...MOVES, ...FLAG_MOVES, ...HINTS];
