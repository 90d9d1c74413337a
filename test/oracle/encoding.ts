// From a plan to instruction bytes (SDM Vol. 2A chapter 2): prefixes in any order, REX, ModRM, SIB, displacement, immediates; and
// base and index registers that make the address what the case wants.

import { OPSIZE, opsizePolicy } from "../../src/cpu/decode-table.ts";
import { GPR } from "../../src/isa/state.ts";
import type { Case } from "./generate.ts";
import { integer64 } from "./random.ts";

const RIP_RELATIVE = -1;

/** Bytes that a memory operand of a size code takes. */
function bytesOf(size: string, operand: number): number {
  switch (size) {
    case "b":
      return 1;
    case "w":
      return 2;
    case "d":
      return 4;
    case "q":
      return 8;
    case "x":
      return 16;
    case "v":
    case "y":
    case "z":
      return operand / 8;
    case "s":
    case "p":
      return 10;
    case "t":
      return 10;
    default:
      return 1;
  }
}

export class Encoding {
  readonly #k: Case;
  modrm = 0;
  rex = 0;
  #sib = -1;
  #disp = 0n;
  #dispBytes = 0;
  #ripRelative = false;
  /** Address size attribute in bits. */
  addressBits: number;
  lock = false;
  /** Immediate bytes; filled before `assemble` by who cares. */
  immediate: number[] | undefined;
  /** Absolute target of a relative branch, or else its displacement. */
  branchTo: number | undefined;
  branchBy = 0;
  /** ModRM.reg, or the register in the opcode, as a full number. */
  reg: number;
  rm: number;

  constructor(k: Case) {
    this.#k = k;
    const { r, plan } = k;
    const { row } = plan;
    const registers = k.long ? 16 : 8;
    this.addressBits = plan.mode;
    const usesAddress =
      plan.form === "memory" ||
      row.options.has("string") ||
      row.options.has("mem") ||
      row.operands.some(({ kind }) => kind === "O");
    if ((usesAddress && r.chance(12)) || r.chance(1)) this.addressBits = plan.mode === 16 ? 32 : plan.mode / 2;
    this.reg = row.reg >= 0 ? row.reg : r.below(registers);
    this.rm = row.rm >= 0 ? row.rm : r.below(registers);
    const fixedX87 = row.map === 0 && row.opcode >= 0xd8 && row.opcode <= 0xdf;
    if (fixedX87) this.rm &= 7;
    if (row.operands.some(({ kind }) => "SCD".includes(kind))) this.reg &= 7;
    this.lock = r.chance(row.instruction.lock === true && plan.form === "memory" ? 20 : 1);
  }

  /** Size of the operand size attribute that displacements and immediates follow. */
  get size(): number {
    return this.#k.plan.size;
  }

  /** Chooses an addressing form for the memory operand and sets its registers. */
  addressing(): void {
    const k = this.#k;
    const { plan } = k;
    const { row } = plan;
    const offset = row.operands.find(({ kind }) => kind === "O");
    if (offset !== undefined) {
      k.width = bytesOf(offset.size, this.size);
      const at = k.place(k.width);
      this.#disp = at;
      this.#dispBytes = this.addressBits / 8;
      const reached = BigInt.asUintN(this.addressBits, at);
      k.target = reached < 1n << 32n ? Number(reached) : -1;
      return;
    }
    if (plan.form !== "memory") return;
    const operand = row.operands.find(({ kind }) => kind.length === 1 && "EMWQ".includes(kind));
    if (k.width === 0) k.width = bytesOf(operand?.size ?? "", this.size);
    const want = k.target >= 0 ? BigInt(k.target) : k.place(k.width);
    const reached = this.addressBits === 16 ? this.#address16(want) : this.#address32(want);
    k.target = reached < 1n << 32n ? Number(reached) : -1;
  }

  #address16(want: bigint): bigint {
    const k = this.#k;
    const { r } = k;
    const pairs: readonly (readonly number[])[] = [[3, 6], [3, 7], [5, 6], [5, 7], [6], [7], [5], [3]];
    const mod = r.below(3);
    const rm = r.below(8);
    this.modrm = (mod << 6) | rm;
    this.#disp = BigInt(r.below(0x10000));
    this.#dispBytes = mod === 0 && rm === 6 ? 2 : mod;
    const direct = mod === 0 && rm === 6;
    if (direct) this.#disp = BigInt.asUintN(16, want);
    let sum = this.#dispBytes === 0 ? 0n : this.#dispBytes === 1 ? BigInt.asIntN(8, this.#disp) : this.#disp;
    if (!direct) {
      // The last register that is free makes up for the others; what lies above 16 bits means nothing.
      const free = pairs[rm].filter((register) => !k.pinned.has(register));
      for (const register of pairs[rm]) {
        if (register !== free.at(-1)) {
          if (!k.pinned.has(register)) k.pin(register, integer64(r));
          sum += k.gpr(register);
        }
      }
      const last = free.at(-1);
      if (last !== undefined) {
        k.pin(last, (integer64(r) & ~0xffffn) | BigInt.asUintN(16, want - sum));
        sum += k.gpr(last);
      }
    }
    return BigInt.asUintN(16, sum);
  }

  #address32(want: bigint): bigint {
    const k = this.#k;
    const { r } = k;
    const registers = k.long ? 16 : 8;
    const width = this.addressBits;
    const wrap = (value: bigint): bigint => BigInt.asUintN(width, value);
    const kind = r.below(100);
    let base = r.below(registers);
    let index = -1;
    let scale = 0;
    let dispBytes = r.pick([0, 1, 1, 4, 4]);
    if (kind < 12) {
      // No base: displacement alone, or relative to RIP.
      base = k.long && r.chance(60) ? RIP_RELATIVE : -2;
      dispBytes = 4;
      if (base === -2 && r.chance(50)) index = r.below(registers);
    } else if (kind < 60) {
      index = r.below(registers);
    }
    if (index === GPR.RSP) index = -1;
    if (index >= 0) scale = r.below(4);
    // Only what reaches no farther than 2 GiB can do without a base register that gives the rest.
    if (base < 0 && (want >= 1n << 31n || index >= 0)) {
      if (want >= 1n << 31n) {
        base = 0;
        while (k.pinned.has(base) || base === GPR.RSP) base++;
        index = -1;
      }
    }
    // A displacement can't make up for the high half of a register that must stay.
    while (base >= 0 && k.pinned.has(base) && k.gpr(base) >= 1n << 32n) base = (base + 1) % registers;
    if (base >= 0 && (base & 7) === 5 && dispBytes === 0) dispBytes = 1;
    if (index >= 0 && !k.pinned.has(index)) {
      // With nothing else to make up for it the index must be small.
      const small = base < 0 || k.pinned.has(base) || index === base;
      k.pin(index, small ? BigInt(r.below(0x1000)) : integer64(r));
    } else if (index >= 0 && (base < 0 || k.pinned.has(base))) {
      index = -1;
    }
    const indexed = index >= 0 ? k.gpr(index) << BigInt(scale) : 0n;
    let disp = 0n;
    if (base >= 0 && !k.pinned.has(base)) {
      if (dispBytes === 1) disp = BigInt(r.between(-128, 127));
      else if (dispBytes === 4) disp = BigInt.asIntN(32, integer64(r));
      const value = wrap(want - disp - indexed);
      // The high half of an address register is ignored with 32-bit addresses.
      k.pin(base, width === 32 && k.long ? value | (BigInt(r.next()) << 32n) : value);
    } else if (base >= 0) {
      dispBytes = 4;
      disp = BigInt.asIntN(32, want - k.gpr(base) - indexed);
    } else if (base === RIP_RELATIVE) {
      index = -1;
      this.#ripRelative = true;
      this.modrm = 5;
      this.#disp = want;
      this.#dispBytes = 4;
      return wrap(want);
    } else {
      disp = BigInt.asIntN(32, want - indexed);
    }
    this.#disp = disp;
    this.#dispBytes = dispBytes;
    const mod = dispBytes === 0 ? 0 : dispBytes === 1 ? 1 : 2;
    const total = wrap((base >= 0 ? k.gpr(base) : 0n) + (index >= 0 ? k.gpr(index) << BigInt(scale) : 0n) + disp);
    if (base === -2) {
      // A SIB byte without base; in 32-bit code there is also the plain form.
      if (index < 0 && !k.long && r.chance(50)) this.modrm = 5;
      else {
        this.modrm = 4;
        this.#sib = (scale << 6) | ((index < 0 ? 4 : index & 7) << 3) | 5;
        if (index >= 8) this.rex |= 2;
      }
      return total;
    }
    if (index >= 0 || (base & 7) === 4 || r.chance(5)) {
      this.modrm = (mod << 6) | 4;
      this.#sib = (scale << 6) | ((index < 0 ? 4 : index & 7) << 3) | (base & 7);
      if (index >= 8) this.rex |= 2;
    } else {
      this.modrm = (mod << 6) | (base & 7);
    }
    if (base >= 8) this.rex |= 1;
    return total;
  }

  #immediates(): number[] {
    const k = this.#k;
    const { r, plan } = k;
    if (this.immediate !== undefined) return this.immediate;
    const bytes: number[] = [];
    const push = (value: bigint, count: number): void => {
      for (let i = 0; i < count; i++) bytes.push(Number((value >> BigInt(8 * i)) & 0xffn));
    };
    for (const { kind, size } of plan.row.operands) {
      if (kind !== "I") continue;
      const operand = this.size;
      const count = size === "b" ? 1 : size === "w" ? 2 : size === "z" ? (operand === 16 ? 2 : 4) : operand / 8;
      push(integer64(r), count);
    }
    return bytes;
  }

  #prefixes(): number[] {
    const k = this.#k;
    const { r, plan } = k;
    const { row } = plan;
    const list: number[] = [];
    const policy = opsizePolicy(row);
    if (row.prefix === 1) list.push(0x66);
    else if (plan.mode === 16 ? plan.size === 32 && policy !== OPSIZE.REX_W : plan.size === 16) list.push(0x66);
    else if (row.prefix === "any" && policy === OPSIZE.FIXED && r.chance(5)) list.push(0x66);
    else if (
      typeof row.prefix === "number" &&
      row.prefix >= 2 &&
      r.chance(4) &&
      plan.size !== 64 &&
      !row.options.has("string")
    ) {
      const sized = row.operands.some(({ size }) => size === "v" || size === "z");
      if (!sized && row.operands.length > 0) list.push(0x66);
    }
    if (row.prefix === 2) list.push(0xf3);
    if (row.prefix === 3) list.push(0xf2);
    if (this.addressBits !== plan.mode) list.push(0x67);
    // FS and GS are the host's own.
    if (r.chance(8)) list.push(r.pick([0x26, 0x2e, 0x36, 0x3e]));
    if (this.lock) list.push(0xf0);
    for (let i = list.length - 1; i > 0; i--) {
      const j = r.below(i + 1);
      [list[i], list[j]] = [list[j], list[i]];
    }
    return list;
  }

  #rexByte(): number {
    const k = this.#k;
    const { r, plan } = k;
    if (!k.long) return 0;
    const { row } = plan;
    let rex = this.rex;
    if (row.modrm) {
      if (this.reg >= 8) rex |= 4;
      if (plan.form !== "memory" && this.rm >= 8) rex |= 1;
    } else if (row.opcodes === 8 && this.reg >= 8) {
      rex |= 1;
    }
    const policy = opsizePolicy(row);
    if (plan.size === 64 && (policy === OPSIZE.NORMAL || policy === OPSIZE.REX_W)) rex |= 8;
    if (policy === OPSIZE.FIXED && r.chance(10)) rex |= 8;
    if (rex === 0 && !r.chance(25)) return 0;
    return 0x40 | rex;
  }

  /** The bytes; the case's RIP may move down so that they fit on the code pages where they should. */
  assemble(): Uint8Array {
    const k = this.#k;
    const { plan } = k;
    const { row } = plan;
    const bytes = this.#prefixes();
    const rex = this.#rexByte();
    if (rex !== 0) bytes.push(rex);
    if (row.map > 0) bytes.push(0x0f);
    if (row.map === 2) bytes.push(0x38);
    if (row.map === 3) bytes.push(0x3a);
    bytes.push(row.opcode + (row.opcodes === 8 ? this.reg & 7 : row.opcodes === 16 ? this.condition : 0));
    const push = (value: bigint, count: number): void => {
      for (let i = 0; i < count; i++) bytes.push(Number((value >> BigInt(8 * i)) & 0xffn));
    };
    if (row.modrm) {
      const memory = plan.form === "memory";
      bytes.push(memory ? this.modrm | ((this.reg & 7) << 3) : 0xc0 | ((this.reg & 7) << 3) | (this.rm & 7));
      if (memory && this.#sib >= 0) bytes.push(this.#sib);
    }
    const immediates = this.#immediates();
    const branch = row.operands.find(({ kind }) => kind === "J");
    const branchBytes = branch === undefined ? 0 : branch.size === "b" ? 1 : this.size === 16 ? 2 : 4;
    const end = k.rip + bytes.length + this.#dispBytes + immediates.length + branchBytes;
    const disp = this.#ripRelative ? this.#disp - BigInt(end) : this.#disp;
    push(disp, this.#dispBytes);
    bytes.push(...immediates);
    if (branch !== undefined)
      push(BigInt(this.branchTo === undefined ? this.branchBy : this.branchTo - end), branchBytes);
    return Uint8Array.from(bytes);
  }

  /** Condition code of a +cc row. */
  condition = 0;
}
