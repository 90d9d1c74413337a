// Function bodies in the text format (WebAssembly Core Specification, 6.5), a line an instruction, for people to read.

import { allOps, type Op } from "./ops.ts";

/** What stands in front of the instruction at an offset. */
export interface Note {
  readonly at: number;
  readonly text: string;
}

const SIMPLE: { readonly [code: number]: string } = {
  0: "unreachable",
  1: "nop",
  5: "else",
  11: "end",
  15: "return",
  26: "drop",
  27: "select",
};
/** With one index behind. */
const INDEXED: { readonly [code: number]: string } = {
  8: "throw",
  12: "br",
  13: "br_if",
  16: "call",
  18: "return_call",
  32: "local.get",
  33: "local.set",
  34: "local.tee",
  35: "global.get",
  36: "global.set",
  37: "table.get",
  38: "table.set",
};
const BLOCKS: { readonly [code: number]: string } = { 2: "block", 3: "loop", 4: "if", 31: "try_table" };
const ACCESSES = (
  "i32.load i64.load f32.load f64.load i32.load8_s i32.load8_u i32.load16_s i32.load16_u i64.load8_s i64.load8_u i64.load16_s " +
  "i64.load16_u i64.load32_s i64.load32_u i32.store i64.store f32.store f64.store i32.store8 i32.store16 i64.store8 i64.store16 i64.store32"
).split(" ");
const FIRST_ACCESS = 0x28;
const VECTOR_LOAD = 0;
const VECTOR_STORE = 11;
const VECTOR_CONST = 12;
const ATOMIC_FENCE = 3;

const OPS = new Map<number, Op>([...allOps()].map((op) => [op.prefix * 0x10000 + op.code, op]));

class Printer {
  private readonly bytes: Uint8Array;
  private readonly view: DataView;
  private at = 0;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  private unsigned(): number {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = this.bytes[this.at++];
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
  }

  private signed(bits: number): bigint {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = this.bytes[this.at++];
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return BigInt.asIntN(bits, (byte & 0x40) === 0 ? value : value | (-1n << (shift + 7n)));
    }
  }

  /** Alignment is of no interest; the memory's number is, where it is not the first. */
  private memory(): string {
    const flags = this.unsigned();
    const memory = (flags & 0x40) === 0 ? 0 : this.unsigned();
    const offset = this.unsigned();
    return `${memory === 0 ? "" : ` ${memory}`}${offset === 0 ? "" : ` offset=0x${offset.toString(16)}`}`;
  }

  private hexBytes(count: number): string {
    const text = [...this.bytes.subarray(this.at, this.at + count)].map((byte) => byte.toString(16).padStart(2, "0"));
    this.at += count;
    return text.join(" ");
  }

  private operation(prefix: number, code: number): string {
    const op = OPS.get(prefix * 0x10000 + code);
    if (op === undefined) throw new RangeError(`unknown opcode ${prefix.toString(16)} ${code.toString(16)}`);
    const lanes = Array.from({ length: op.lanes }, () => this.bytes[this.at++]);
    return [op.name, ...lanes].join(" ");
  }

  private prefixed(prefix: number): string {
    const code = this.unsigned();
    if (prefix === 0xfe) {
      if (code === ATOMIC_FENCE) {
        this.at++;
        return "atomic.fence";
      }
      return `atomic.0x${code.toString(16)}${this.memory()}`;
    }
    if (prefix === 0xfc && code === 10) return `memory.copy ${this.unsigned()} ${this.unsigned()}`;
    if (prefix === 0xfc && code === 11) return `memory.fill ${this.unsigned()}`;
    if (prefix === 0xfd && code === VECTOR_LOAD) return `v128.load${this.memory()}`;
    if (prefix === 0xfd && code === VECTOR_STORE) return `v128.store${this.memory()}`;
    if (prefix === 0xfd && code === VECTOR_CONST) return `v128.const ${this.hexBytes(16)}`;
    return this.operation(prefix, code);
  }

  private blockType(): string {
    const byte = this.bytes[this.at];
    if (byte >= 0x40 && byte < 0x80) {
      this.at++;
      return byte === 0x40 ? "" : " (result)";
    }
    return ` (type ${this.signed(33)})`;
  }

  /** The instruction that begins here. */
  next(): string {
    const code = this.bytes[this.at++];
    if (code in SIMPLE) return SIMPLE[code];
    if (code in INDEXED) return `${INDEXED[code]} ${this.unsigned()}`;
    if (code >= FIRST_ACCESS && code < FIRST_ACCESS + ACCESSES.length)
      return ACCESSES[code - FIRST_ACCESS] + this.memory();
    switch (code) {
      case 2:
      case 3:
      case 4:
        return BLOCKS[code] + this.blockType();
      case 14:
        return `br_table ${Array.from({ length: this.unsigned() + 1 }, () => this.unsigned()).join(" ")}`;
      case 17:
      case 19:
        return `${code === 17 ? "call_indirect" : "return_call_indirect"} (type ${this.unsigned()}) ${this.unsigned()}`;
      case 0x41:
        return `i32.const ${this.signed(32)}`;
      case 0x42:
        return `i64.const ${this.signed(64)}`;
      case 0x43:
        this.at += 4;
        return `f32.const ${this.view.getFloat32(this.at - 4, true)}`;
      case 0x44:
        this.at += 8;
        return `f64.const ${this.view.getFloat64(this.at - 8, true)}`;
      case 0xfc:
      case 0xfd:
      case 0xfe:
        return this.prefixed(code);
      default:
        return this.operation(0, code);
    }
  }

  get offset(): number {
    return this.at;
  }

  get done(): boolean {
    return this.at >= this.bytes.length;
  }
}

/** Lines of an expression, indented by its blocks, with the notes between. */
export function wasmText(code: Uint8Array, notes: readonly Note[]): string[] {
  const printer = new Printer(code);
  const sorted = notes.toSorted((a, b) => a.at - b.at);
  const lines: string[] = [];
  let depth = 1;
  let noted = 0;
  const note = (until: number): void => {
    while (noted < sorted.length && sorted[noted].at <= until) lines.push(sorted[noted++].text);
  };
  while (!printer.done) {
    note(printer.offset);
    const text = printer.next();
    const word = text.split(" ")[0];
    if (word === "end" || word === "else") depth--;
    lines.push(`${"  ".repeat(depth)}${text}`);
    if (word === "block" || word === "loop" || word === "if" || word === "else") depth++;
  }
  note(Number.POSITIVE_INFINITY);
  return lines;
}
