// Which handlers the interpreter has: for each row, operand size and form the number of the handler that executes it. Semantics that do
// not look at a size or form share one, and rarely used instructions have only the universal forms of memory operands.

import type { Instruction } from "../isa/instruction.ts";
import type { Bits } from "../isa/semantics.ts";
import { type Entry, FORM, parseRow, type Row, rowSizes, sizeIndex, VARIANTS_PER_ENTRY } from "./decode-table.ts";
import { PSEUDO } from "./decoder.ts";
import type { Usage } from "./interpreter-semantics.ts";

/** One handler to generate. */
export interface HandlerSpec {
  readonly row: Row;
  readonly opcode: number;
  readonly size: Bits;
  readonly form: number;
  readonly name: string;
}

export interface HandlerPlan {
  readonly entries: readonly Entry[];
  /** By handler number; the first PSEUDO.COUNT are none. */
  readonly handlers: readonly (HandlerSpec | undefined)[];
}

const FORM_NAME = ["reg", "base", "index", "seg", "any", "reg*", "lock"];

/** Forms of a row, and for each the form whose handler serves it. */
function formsOf(row: Row): readonly (readonly [form: number, served: number])[] {
  const hot = row.instruction.hot === true;
  const memoryOperand = row.operands.some(({ kind }) => kind === "M" || kind === "E" || kind === "W" || kind === "Q");
  const offsetOperand = row.operands.some(({ kind }) => kind === "O");
  if (offsetOperand) return [[FORM.ANY, FORM.ANY]];
  const forms: [number, number][] = [];
  if (row.mod !== "memory") {
    forms.push([FORM.REGISTER, FORM.REGISTER]);
    forms.push([FORM.REGISTER_ANY, FORM.REGISTER_ANY]);
  }
  if (row.mod !== "register" && memoryOperand) {
    for (const form of [FORM.BASE, FORM.INDEX, FORM.SEGMENT]) forms.push([form, hot ? form : FORM.ANY]);
    forms.push([FORM.ANY, FORM.ANY]);
    if (row.instruction.lock === true) forms.push([FORM.LOCKED, FORM.LOCKED]);
  }
  return forms;
}

/** What two rows must have in common to share a handler. `description` is the number of the instruction that they belong to. */
function signature(row: Row, opcode: number, description: number): string {
  const operands = row.operands.map((operand) => {
    const { kind, size, fixed, signed } = operand;
    if (kind === "I") return signed || size === "z" ? "I" : `I${size}`;
    return `${kind}${size}${fixed}`;
  });
  return `${description} ${row.opcodes === 16 ? opcode & 15 : ""} ${operands.join(",")} ${row.mod}`;
}

/**
 * Plans all handlers. `probe` emits one into a scratch module and reports what its semantics used.
 * `inlineFirst` ranks handlers by name (lower first); those it ranks get the lowest numbers.
 */
export function planHandlers(
  instructions: readonly Instruction[],
  probe: (spec: HandlerSpec) => Usage,
  inlineRank: ReadonlyMap<string, number>,
): HandlerPlan {
  const undefinedRow = parseRow({ name: "undefined", rows: [], semantics: () => undefined }, "0F FF");
  const entries: Entry[] = [
    { row: undefinedRow, opcode: 0xff, variants: new Uint16Array(VARIANTS_PER_ENTRY), ends: true, falls: false },
  ];
  const specs: HandlerSpec[] = [];
  const byKey = new Map<string, { number: number; usage: Usage }>();
  const pending: { variants: Uint16Array; at: number; index: number }[] = [];
  for (const [description, instruction] of instructions.entries()) {
    for (const text of instruction.rows) {
      const row = parseRow(instruction, text);
      const count = row.opcodes === 16 ? 16 : 1;
      for (let cc = 0; cc < count; cc++) {
        const opcode = row.opcode + cc;
        const entry: Entry = {
          row,
          opcode,
          variants: new Uint16Array(VARIANTS_PER_ENTRY).fill(PSEUDO.UNDEFINED),
          ends: false,
          falls: false,
        };
        entries.push(entry);
        const base = signature(row, opcode, description);
        for (const [form, served] of formsOf(row)) {
          for (const size of rowSizes(row)) {
            // 64-bit operands exist in 64-bit code only, and flat forms serve only that.
            const get = (key: string, make: () => HandlerSpec): { number: number; usage: Usage } => {
              let found = byKey.get(key);
              if (found === undefined) {
                const spec = make();
                found = { number: specs.length, usage: probe(spec) };
                specs.push(spec);
                byKey.set(key, found);
                // Whoever looks at neither the size nor the mode shares.
                if (!found.usage.opsize) byKey.set(`${base} * ${served}`, found);
                if (!found.usage.long && (served === FORM.REGISTER || served === FORM.REGISTER_ANY)) {
                  byKey.set(`${base} ${size} register`, found);
                  if (!found.usage.opsize) byKey.set(`${base} * register`, found);
                }
              }
              return found;
            };
            const shared =
              byKey.get(`${base} * ${served}`) ??
              (served === FORM.REGISTER || served === FORM.REGISTER_ANY
                ? (byKey.get(`${base} ${size} register`) ?? byKey.get(`${base} * register`))
                : undefined);
            const cond = row.opcodes === 16 ? `.${(opcode & 15).toString(16)}` : "";
            const operands = row.operands
              .map(({ kind, size: s, fixed }) => (kind === "fixed" ? `r${fixed}${s}` : kind + s))
              .join(",");
            const found =
              shared ??
              get(`${base} ${size} ${served}`, () => ({
                row,
                opcode,
                size,
                form: served,
                name: `${instruction.name}${cond} ${operands} ${size} ${FORM_NAME[served]}`,
              }));
            pending.push({ variants: entry.variants, at: sizeIndex(size) * FORM.COUNT + form, index: found.number });
            entry.ends ||= found.usage.ends;
            entry.falls ||= found.usage.done;
          }
        }
      }
    }
  }
  const order = specs.map((_, i) => i);
  const rank = (i: number): number => inlineRank.get(specs[i].name) ?? Number.MAX_SAFE_INTEGER;
  order.sort((a, b) => rank(a) - rank(b) || a - b);
  const numberOf = new Uint16Array(specs.length);
  order.forEach((spec, position) => {
    numberOf[spec] = position + PSEUDO.COUNT;
  });
  for (const { variants, at, index } of pending) variants[at] = numberOf[index];
  return { entries, handlers: [...new Array(PSEUDO.COUNT).fill(undefined), ...order.map((i) => specs[i])] };
}
