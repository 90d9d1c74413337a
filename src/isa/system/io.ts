// IN, OUT, INS and OUTS, and who may use them (SDM Vol. 1 19.5; Vol. 2A IN, INS; Vol. 2B OUT, OUTS).

import { i64, type Val } from "../../wasm/value.ts";
import { faultingHelper, type Helper, portIn, portOut } from "../helper.ts";
import type { Instruction, InstructionGroup } from "../instruction.ts";
import { countDown, repeatCount, stepIndex, stringAddress, stringRound } from "../integer/string-access.ts";
import type { Env, Sem } from "../semantics.ts";
import { CPL, GPR, SREG, TR, VECTOR } from "../state.ts";
import { iopl, isVirtual8086, wrapLinear } from "./modes.ts";

type IoBits = 8 | 16 | 32;

/** Offset of the map's base in the TSS, and the least limit of a TSS that has one. */
const MAP_BASE = 0x66;
const LEAST_LIMIT = 0x67;

/** Looks up the I/O permission bit map: port, bytes. #GP(0) where a bit is set or the map does not reach. */
const checkBitMap = faultingHelper("checkIoBitMap", ["i32", "i32"], [], (x, port, bytes) => {
  const { c } = x;
  const limit = c.let(x.get(TR.limit));
  x.raiseIf(x.get(TR.attr).and(8).eqz().or(limit.ltU(LEAST_LIMIT)), VECTOR.GP, 0);
  const base = c.let(x.get(TR.base));
  const map = x.load(16, wrapLinear(x, base.add(BigInt(MAP_BASE))), "system");
  const at = c.let(map.add(port.shrU(3)));
  // Two bytes are read always (SDM Vol. 1 19.5.2).
  x.raiseIf(at.add(1).gtU(limit), VECTOR.GP, 0);
  const bits = x.load(16, wrapLinear(x, base.add(at.zx())), "system");
  const wanted = c.let(i64(1).shl(bytes.zx()).wrap().sub(1));
  x.raiseIf(bits.shrU(port.and(7)).and(wanted), VECTOR.GP, 0);
  x.done();
});

/** Real mode runs at CPL 0, virtual-8086 mode always asks the map. */
function checkPort(x: Env, port: Val, bytes: number): void {
  const restricted = x.get(CPL).gtU(iopl(x)).or(isVirtual8086(x).ne(0));
  x.c.if(restricted, () => x.invoke(checkBitMap, port, bytes), undefined, "unlikely");
}

function narrow(value: Val, bits: IoBits): Val {
  return bits === 32 ? value : value.and(bits === 16 ? 0xffff : 0xff);
}

/** Reads a port into the accumulator. */
function input(x: Sem, bits: IoBits, port: Val): void {
  const number = x.c.let(port);
  checkPort(x, number, bits / 8);
  x.setGpr(GPR.RAX, bits, narrow(x.call(portIn, number, bits / 8), bits));
}

/** Writes the accumulator to a port; what the device does in answer (an interrupt, a reset) is seen before the next instruction. */
function output(x: Sem, bits: IoBits, port: Val): void {
  const number = x.c.let(port);
  checkPort(x, number, bits / 8);
  x.invoke(portOut, number, bits / 8, x.gpr(GPR.RAX, bits));
  x.endBlock();
}

/** Operand size of the wide forms: 32 bits with REX.W too. */
function wideBits(x: Sem): IoBits {
  return x.opsize === 16 ? 16 : 32;
}

function portInDx(x: Env): Val {
  return x.gpr(GPR.RDX, 16);
}

/** One element of INS: address size. */
function insHelper(bits: IoBits): Helper {
  return faultingHelper(`ins${bits}`, ["i32"], [], (x, size) => {
    const round = stringRound(x, size, bits / 8);
    const port = x.c.let(portInDx(x));
    checkPort(x, port, bits / 8);
    const linear = stringAddress(x, round, SREG.ES, GPR.RDI, true);
    x.probeWrite(bits, linear);
    x.store(bits, linear, narrow(x.call(portIn, port, bits / 8), bits));
    stepIndex(x, round, GPR.RDI);
    x.done();
  });
}

/** One element of OUTS: segment, address size. */
function outsHelper(bits: IoBits): Helper {
  return faultingHelper(`outs${bits}`, ["i32", "i32"], [], (x, segment, size) => {
    const round = stringRound(x, size, bits / 8);
    const port = x.c.let(portInDx(x));
    checkPort(x, port, bits / 8);
    const value = x.load(bits, stringAddress(x, round, segment, GPR.RSI, false));
    x.invoke(portOut, port, bits / 8, value);
    stepIndex(x, round, GPR.RSI);
    x.done();
  });
}

const INS = { 8: insHelper(8), 16: insHelper(16), 32: insHelper(32) } as const;
const OUTS = { 8: outsHelper(8), 16: outsHelper(16), 32: outsHelper(32) } as const;

/** One round, and with REP the instruction again while the count is not zero: each transfer can be interrupted before the next. */
function stringIo(
  name: string,
  opcode: string,
  narrowForm: boolean,
  one: (x: Sem, bits: IoBits) => void,
): Instruction[] {
  const bitsOf = (x: Sem): IoBits => (narrowForm ? 8 : wideBits(x));
  return [
    {
      name,
      rows: [`${opcode} ; string end`],
      semantics: (x) => {
        one(x, bitsOf(x));
        x.endBlock();
      },
    },
    {
      name: `REP ${name}`,
      rows: [`F3 ${opcode} ; string end`, `F2 ${opcode} ; string end`],
      semantics: (x) => {
        const round = stringRound(x, x.addressSize(), bitsOf(x) / 8);
        x.c.if(repeatCount(x, round).eqz(), () => x.endBlock());
        one(x, bitsOf(x));
        countDown(x, round, i64(1));
        x.c.if(repeatCount(x, round).ne(0n), () => x.restart());
        x.endBlock();
      },
    },
  ];
}

const ins = (x: Sem, bits: IoBits): void => x.invoke(INS[bits], x.addressSize());
const outs = (x: Sem, bits: IoBits): void => x.invoke(OUTS[bits], x.segmentNumber(), x.addressSize());

export const IO: InstructionGroup = [
  { name: "IN", rows: ["E4: Ib"], semantics: (x) => input(x, 8, x.read(0)) },
  { name: "IN", rows: ["E5: Ib"], semantics: (x) => input(x, wideBits(x), x.read(0)) },
  { name: "IN", rows: ["EC"], semantics: (x) => input(x, 8, portInDx(x)) },
  { name: "IN", rows: ["ED"], semantics: (x) => input(x, wideBits(x), portInDx(x)) },
  { name: "OUT", rows: ["E6: Ib; end"], semantics: (x) => output(x, 8, x.read(0)) },
  { name: "OUT", rows: ["E7: Ib; end"], semantics: (x) => output(x, wideBits(x), x.read(0)) },
  { name: "OUT", rows: ["EE; end"], semantics: (x) => output(x, 8, portInDx(x)) },
  { name: "OUT", rows: ["EF; end"], semantics: (x) => output(x, wideBits(x), portInDx(x)) },
  ...stringIo("INSB", "6C", true, ins),
  ...stringIo("INS", "6D", false, ins),
  ...stringIo("OUTSB", "6E", true, outs),
  ...stringIo("OUTS", "6F", false, outs),
];
