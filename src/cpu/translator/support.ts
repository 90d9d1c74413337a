// What the engine module gives to translated regions: accesses that the inline TLB lookup does not serve, flags, helpers, the handlers'
// table, and a section that tells which handler number is which.

import type { Instruction } from "../../isa/instruction.ts";
import type { Bits, Env } from "../../isa/semantics.ts";
import { CPL, CR0, CR0_BIT, FLAG, RFLAGS } from "../../isa/state.ts";
import type { Code } from "../../wasm/code.ts";
import type { FuncRef, ModuleBuilder } from "../../wasm/module.ts";
import { op, type Val } from "../../wasm/value.ts";
import { parseRow, type Row } from "../decode-table.ts";
import { valueType } from "../env.ts";
import type { HandlerSpec } from "../handlers.ts";
import { VAR } from "../layout.ts";

/** Names of the engine module's exports that regions import. */
export const SUPPORT = {
  TABLE: "handlers",
  HELPER: "helper.",
  LOAD: "unalignedLoad",
  STORE: "unalignedStore",
  FLAG_PARTS: "flagParts",
  SPILL_FLAGS: "spillFlags",
} as const;

type Width = Bits | 128;
/** Widths of accesses that may be unaligned. */
export const UNALIGNED_WIDTHS: readonly Width[] = [16, 32, 64, 128];

/** Host offset of an unaligned access that stays in a page of the TLB; leaves by `refuse` where it is anything else. */
function lookUp(c: Code, x: Env, width: Width, table: number, refuse: () => void): Val {
  const [linear] = c.params;
  const slot = linear.shrU(9).wrap().and(x.cpu.ld32(0, VAR.TLB_INDEX_MASK)).add(x.cpu.ld32(0, table));
  const found = c.let(x.cpu.ld64(slot).xor(linear));
  const crosses = linear
    .wrap()
    .and(0xfff)
    .gtU(0x1000 - width / 8);
  // Alignment checking: SDM Vol. 3A 6.15, #AC.
  const checked = x.get(CPL).eq(3).and(x.get(CR0).and(CR0_BIT.AM).ne(0)).and(x.get(RFLAGS).and(FLAG.AC).ne(0));
  c.if(found.and(x.cpu.ld64(0, VAR.TLB_MASK)).ne(0n).or(crosses).or(checked), refuse, undefined, "unlikely");
  return found.wrap();
}

/** (linear) -> (status, value): not zero where the interpreter shall do it. */
function emitLoad(m: ModuleBuilder, env: (c: Code) => Env, width: Width): FuncRef {
  const type = width === 128 ? "v128" : valueType(width);
  return m.func(`unalignedLoad${width}`, ["i64"], ["i32", type], (c) => {
    const x = env(c);
    const nothing = width === 128 ? op("i32x4.splat", 0) : 0;
    const at = lookUp(c, x, width, VAR.TLB_READ, () => c.ret(1, nothing));
    const { ram } = x;
    const value = { 8: ram.ld8u, 16: ram.ld16u, 32: ram.ld32, 64: ram.ld64, 128: ram.ldv128 }[width].call(ram, at);
    c.results([0, value]);
  });
}

/** (linear, value) -> status. */
function emitStore(m: ModuleBuilder, env: (c: Code) => Env, width: Width): FuncRef {
  const type = width === 128 ? "v128" : valueType(width);
  return m.func(`unalignedStore${width}`, ["i64", type], ["i32"], (c) => {
    const x = env(c);
    const at = lookUp(c, x, width, VAR.TLB_WRITE, () => c.ret(1));
    c.store(x.ram, width / 8, at, c.params[1]);
    c.results([0]);
  });
}

export function emitUnaligned(m: ModuleBuilder, env: (c: Code) => Env): void {
  for (const width of UNALIGNED_WIDTHS) {
    m.exportFunc(SUPPORT.LOAD + width, emitLoad(m, env, width));
    m.exportFunc(SUPPORT.STORE + width, emitStore(m, env, width));
  }
}

export const HANDLER_SECTION = "skep.handlers";
const FIELDS = 5;

/** By handler number: instruction, row, opcode, size, form, 16 bits each. */
export function encodeHandlers(
  instructions: readonly Instruction[],
  handlers: readonly (HandlerSpec | undefined)[],
): Uint8Array {
  const numbers = new Map(instructions.map((instruction, n) => [instruction, n]));
  const fields = new Uint16Array(handlers.length * FIELDS);
  handlers.forEach((spec, n) => {
    const { row, opcode, size, form } = spec ?? { row: undefined, opcode: 0, size: 0, form: 0 };
    const instruction = row === undefined ? 0xffff : (numbers.get(row.instruction) ?? 0xffff);
    const rowNumber = row === undefined ? 0 : row.instruction.rows.indexOf(row.text);
    fields.set([instruction, rowNumber, opcode, size, form], n * FIELDS);
  });
  return new Uint8Array(fields.buffer);
}

/** The handlers of a module, from its section and the instructions that it was made of. */
export function decodeHandlers(
  instructions: readonly Instruction[],
  section: ArrayBuffer,
): readonly (HandlerSpec | undefined)[] {
  const fields = new Uint16Array(section);
  const rows = new Map<number, Row>();
  return Array.from({ length: fields.length / FIELDS }, (_, n) => {
    const [instruction, rowNumber, opcode, size, form] = fields.subarray(n * FIELDS, (n + 1) * FIELDS);
    if (instruction === 0xffff) return undefined;
    const key = instruction * 0x10000 + rowNumber;
    let row = rows.get(key);
    if (row === undefined) {
      row = parseRow(instructions[instruction], instructions[instruction].rows[rowNumber]);
      rows.set(key, row);
    }
    return { row, opcode, size: size as Bits, form, name: `${row.instruction.name} ${row.text} ${size} ${form}` };
  });
}

/** What a block's end means for the way on, as bits by handler number; 0 where a number is no instruction's. A translator that only finds regions
 *  needs no more than this of the instructions. */
export const END = { INSTRUCTION: 1, CALL: 2, RETURN: 4, INDIRECT: 8, RELATIVE: 16, FALLS: 32 } as const;
export const END_SECTION = "skep.ends";

export function encodeEnds(handlers: readonly (HandlerSpec | undefined)[]): Uint8Array {
  return Uint8Array.from(handlers, (spec) => {
    if (spec === undefined) return 0;
    const { name } = spec.row.instruction;
    const [operand] = spec.row.operands;
    const jumps = name === "JMP" || name === "CALL";
    const relative = operand?.kind === "J";
    return (
      END.INSTRUCTION |
      (name === "CALL" ? END.CALL : 0) |
      (name === "RET" ? END.RETURN : 0) |
      (jumps && operand?.kind === "E" ? END.INDIRECT : 0) |
      (relative ? END.RELATIVE : 0) |
      (relative && !jumps ? END.FALLS : 0)
    );
  });
}
