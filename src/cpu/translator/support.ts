// What the engine module gives to translated regions: accesses that the inline TLB lookup does not serve, flags, helpers, the handlers'
// table, and a section that tells which handler number is which.

import type { Instruction } from "../../isa/instruction.ts";
import type { Bits, Env } from "../../isa/semantics.ts";
import { CPL, CR0, CR0_BIT, FLAG, PENDING_VECTOR, RFLAGS } from "../../isa/state.ts";
import type { Code } from "../../wasm/code.ts";
import type { Memory } from "../../wasm/memory.ts";
import type { FuncRef, ModuleBuilder } from "../../wasm/module.ts";
import { i32, op, select, type Val } from "../../wasm/value.ts";
import { breakpointsEnabled } from "../breakpoints.ts";
import { codeBits, isClosed, pageWords } from "../code-pages.ts";
import { bothOpen, crossesPage, gather, scatter, secondPage } from "../crossing.ts";
import { parseRow, type Row } from "../decode-table.ts";
import { valueType } from "../env.ts";
import type { HandlerSpec } from "../handlers.ts";
import { BLOCK, CROSSING, DESCRIPTOR, JUMP_CACHE, PAGE_WORDS, VAR } from "../layout.ts";
import { loadFrom, WIDTHS, type Width } from "../memory-access.ts";
import { type PagingFuncs, WALK } from "../paging.ts";
import { jumpCacheSlot, jumpTag } from "../tlb.ts";
import { isCached } from "./region-jump.ts";

/** Names of the engine module's exports that regions import. */
export const SUPPORT = {
  TABLE: "handlers",
  HELPER: "helper.",
  LOAD: "regionLoad",
  STORE: "regionStore",
  MODIFY: "regionModify",
  PLACE: "regionGroupPlace",
  FLAG_PARTS: "flagParts",
  SPILL_FLAGS: "spillFlags",
  IS_BLOCK: "regionIsBlock",
} as const;

/** Alignment checking (SDM Vol. 3A 6.15, #AC). */
export function checksAlignment(x: Env): Val {
  return x.get(CPL).eq(3).and(x.get(CR0).and(CR0_BIT.AM).ne(0)).and(x.get(RFLAGS).and(FLAG.AC).ne(0));
}

/** Where an access crosses a page: runs `both` with the host offsets of the two pages, or `refuse`. */
function whereItCrosses(
  x: Env,
  place: FuncRef,
  linear: Val,
  write: number,
  bytes: number,
  refuse: () => void,
  both: (pages: readonly [Val, Val]) => void,
): void {
  const { c } = x;
  c.if(
    crossesPage(linear, bytes),
    () => {
      c.if(checksAlignment(x), refuse);
      const first = c.let(c.call(place, linear, write, 1));
      c.if(first.eq(-1), refuse);
      const second = c.let(c.call(place, secondPage(linear), write, 1));
      c.if(second.eq(-1), refuse);
      both([first, second]);
    },
    undefined,
    "unlikely",
  );
}

/** (linear, WALK.WRITE or 0, bytes) -> host offset of an access within a page of RAM, which is in the TLB from now on, or -1 where the
 *  interpreter shall do it: what faults, crosses a page, is no RAM or has its alignment checked (SDM Vol. 3A 6.15, #AC). */
function emitPlace(m: ModuleBuilder, env: (c: Code) => Env, paging: PagingFuncs): FuncRef {
  return m.func("regionPlace", ["i64", "i32", "i32"], ["i32"], (c) => {
    const x = env(c);
    const { cpu } = x;
    const [linear, write, bytes] = c.params;
    const misaligned = linear.wrap().and(bytes.sub(1)).ne(0);
    c.if(crossesPage(linear, bytes).or(checksAlignment(x).and(misaligned)), () => c.ret(-1), undefined, "unlikely");
    const table = cpu.ld32(select(write, i32(VAR.TLB_WRITE), VAR.TLB_READ));
    const slot = linear.shrU(9).wrap().and(cpu.ld32(0, VAR.TLB_INDEX_MASK)).add(table);
    const found = c.let(cpu.ld64(slot).xor(linear));
    c.if(found.and(cpu.ld64(0, VAR.TLB_MASK)).eqz(), () => c.ret(found.wrap()), undefined, "likely");
    const canonical = linear.shl(16).shrS(16).eq(linear);
    c.if(canonical.eqz().or(breakpointsEnabled(x)), () => c.ret(-1), undefined, "unlikely");
    const [status, host] = c.callMany(paging.translate, [linear, write.or(x.get(CPL).eq(3).shl(2))]);
    c.if(
      status,
      () => {
        // The interpreter raises the fault again, with the same CR2.
        c.if(status.eq(1), () => {
          x.put(PENDING_VECTOR, -1);
          c.st32(cpu, 0, cpu.ld32(0, VAR.COUNT_FAULTS).sub(1), VAR.COUNT_FAULTS);
        });
        c.ret(-1);
      },
      undefined,
      "unlikely",
    );
    c.results([host]);
  });
}

/** (linear) -> (value, status): not zero where the interpreter shall do it. */
function emitLoad(m: ModuleBuilder, env: (c: Code) => Env, place: FuncRef, width: Width): FuncRef {
  const type = width === 128 ? "v128" : valueType(width);
  return m.func(`regionLoad${width}`, ["i64"], [type, "i32"], (c) => {
    const x = env(c);
    const [linear] = c.params;
    const refuse = (): void => c.ret(width === 128 ? op("i32x4.splat", 0) : 0, 1);
    whereItCrosses(x, place, linear, 0, width / 8, refuse, (pages) => {
      gather(x, linear, width / 8, pages);
      c.ret(loadFrom(x.cpu, width, i32(CROSSING)), 0);
    });
    const at = c.let(c.call(place, linear, 0, width / 8));
    c.if(at.eq(-1), refuse, undefined, "unlikely");
    c.results([loadFrom(x.ram, width, at), 0]);
  });
}

/** Whether code was decoded from the neighbourhood of some bytes of one page. */
function holdsCode(x: Env, first: Val, last: Val): Val {
  const code = x.c.atomicLoad("i64", x.ram, 8, pageWords(x, first), PAGE_WORDS.CODE);
  return code.and(codeBits(first, last)).ne(0n);
}

/** (linear, value) -> status. */
function emitStore(
  m: ModuleBuilder,
  env: (c: Code) => Env,
  place: FuncRef,
  invalidateRange: FuncRef,
  width: Width,
): FuncRef {
  const type = width === 128 ? "v128" : valueType(width);
  return m.func(`regionStore${width}`, ["i64", type], ["i32"], (c) => {
    const x = env(c);
    const [linear, value] = c.params;
    const refuse = (): void => c.ret(1);
    whereItCrosses(x, place, linear, WALK.WRITE, width / 8, refuse, (pages) => {
      c.if(bothOpen(x, pages).eqz(), refuse);
      c.store(x.cpu, width / 8, i32(CROSSING), value);
      scatter(x, linear, width / 8, pages);
      c.ret(0);
    });
    const at = c.let(c.call(place, linear, WALK.WRITE, width / 8));
    c.if(at.eq(-1), refuse, undefined, "unlikely");
    c.if(isClosed(x, at), () => {
      // Data beside code. What was made of code must not go while a region runs: there the interpreter stores.
      c.if(holdsCode(x, at, at.add(width / 8 - 1)), () => c.ret(1));
      c.store(x.ram, width / 8, at, value);
      c.invoke(invalidateRange, at, width / 8);
      c.ret(0);
    });
    c.store(x.ram, width / 8, at, value);
    c.results([0]);
  });
}

/** (linear, bytes) -> host offset where an operand may be read and written in place, or -1. */
function emitModify(m: ModuleBuilder, env: (c: Code) => Env, place: FuncRef): FuncRef {
  return m.func("regionModify", ["i64", "i32"], ["i32"], (c) => {
    const x = env(c);
    const [linear, bytes] = c.params;
    const at = c.let(c.call(place, linear, WALK.WRITE, bytes));
    c.if(at.ne(-1), () => c.if(isClosed(x, at), () => c.ret(-1)));
    c.results([at]);
  });
}

/** HOST of a dead block (src/cpu/blocks.ts). */
const DEAD = -1;

/** (linear, record, descriptor, RIP of the region's first page, pages with this one) -> whether the block of a record is what lies at a linear
 *  address now, as far as the jump cache knows. Where it is, the descriptor remembers the pages. */
export function emitIsBlock(m: ModuleBuilder, cpu: Memory): FuncRef {
  return m.func("regionIsBlock", ["i64", "i32", "i32", "i64", "i32"], ["i32"], (c) => {
    const [linear, record, descriptor, base, pages] = c.params;
    const slot = c.let(jumpCacheSlot(linear));
    const known = isCached(cpu, slot, linear)
      .and(cpu.ld32(slot, JUMP_CACHE + 8).eq(record))
      .and(cpu.ld32(record.sub(BLOCK.SIZE - BLOCK.HOST)).ne(DEAD));
    c.if(known.eqz(), () => c.ret(0));
    c.st64(cpu, descriptor, base, DESCRIPTOR.BASE);
    c.st32(cpu, descriptor, jumpTag(cpu, base), DESCRIPTOR.TAG);
    c.st32(cpu, descriptor, cpu.ld32(0, VAR.COUNT_INVALIDATED), DESCRIPTOR.INVALIDATIONS);
    c.st32(cpu, descriptor, pages, DESCRIPTOR.PAGES);
    c.results([1]);
  });
}

/** (first, WALK.WRITE or 0, size) -> host offset of some bytes within a page of RAM, or -1 where the interpreter shall do what accesses them. */
function emitGroupPlace(m: ModuleBuilder, env: (c: Code) => Env, place: FuncRef): FuncRef {
  return m.func("regionGroupPlace", ["i64", "i32", "i32"], ["i32"], (c) => {
    const x = env(c);
    const [first, write, size] = c.params;
    c.if(first.and(0xfffn).wrap().add(size).gtU(0x1000).or(checksAlignment(x)), () => c.ret(-1));
    const at = c.let(c.call(place, first, write, 1));
    c.if(at.ne(-1).and(write.ne(0)), () => c.if(isClosed(x, at), () => c.ret(-1)));
    c.results([at]);
  });
}

export function emitRegionAccess(
  m: ModuleBuilder,
  env: (c: Code) => Env,
  paging: PagingFuncs,
  invalidateRange: FuncRef,
): void {
  const place = emitPlace(m, env, paging);
  for (const width of WIDTHS) {
    m.exportFunc(SUPPORT.LOAD + width, emitLoad(m, env, place, width));
    m.exportFunc(SUPPORT.STORE + width, emitStore(m, env, place, invalidateRange, width));
  }
  m.exportFunc(SUPPORT.PLACE, emitGroupPlace(m, env, place));
  m.exportFunc(SUPPORT.MODIFY, emitModify(m, env, place));
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
