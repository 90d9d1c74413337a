// Typed expressions. A `Val` is a tree that is written out where it is used: using one twice computes it twice, and a load is done
// at the place of use. `Code.let` fixes a value in a local. Operations on constants are folded when the tree is built.

import { allOps, findOp, findOpOf, type Op, VAL_TYPE_CODE, type ValType } from "./ops.ts";
import type { ByteWriter } from "./writer.ts";

export type Operand = Val | number | bigint;

const NO_LANES: readonly number[] = [];
const WRAP = findOp("i32.wrap_i64");
const EXTEND_U = findOp("i64.extend_i32_u");
const EXTEND_S = findOp("i64.extend_i32_s");
const VECTOR_XOR = findOp("v128.xor");
const REINTERPRETATIONS: ReadonlySet<Op> = new Set([...allOps()].filter(({ name }) => name.includes(".reinterpret_")));

/** An expression of one type. Operands given as numbers become constants of the type that the operation wants. */
export abstract class Val {
  readonly type: ValType;

  constructor(type: ValType) {
    this.type = type;
  }

  abstract emit(out: ByteWriter): void;

  /** The value of a constant (i32 as signed number, i64 as signed bigint), else undefined. */
  get constant(): number | bigint | undefined {
    return undefined;
  }

  /** Whether this is the vector constant zero. */
  get isZeroVector(): boolean {
    return false;
  }

  private two(name: string, other: Operand): Val {
    return build(findOpOf(this.type, name), NO_LANES, [this, asVal(other, this.type)]);
  }

  add(other: Operand): Val {
    return isZero(other) ? this : this.two("add", other);
  }
  sub(other: Operand): Val {
    return isZero(other) ? this : this.two("sub", other);
  }
  mul(other: Operand): Val {
    return this.two("mul", other);
  }
  divS(other: Operand): Val {
    return this.two("div_s", other);
  }
  divU(other: Operand): Val {
    return this.two("div_u", other);
  }
  remS(other: Operand): Val {
    return this.two("rem_s", other);
  }
  remU(other: Operand): Val {
    return this.two("rem_u", other);
  }
  div(other: Operand): Val {
    return this.two("div", other);
  }
  and(other: Operand): Val {
    return this.two("and", other);
  }
  or(other: Operand): Val {
    return isZero(other) ? this : this.two("or", other);
  }
  xor(other: Operand): Val {
    return isZero(other) ? this : this.two("xor", other);
  }
  shl(other: Operand): Val {
    return isZero(other) ? this : this.two("shl", other);
  }
  shrS(other: Operand): Val {
    return isZero(other) ? this : this.two("shr_s", other);
  }
  shrU(other: Operand): Val {
    return isZero(other) ? this : this.two("shr_u", other);
  }
  rotl(other: Operand): Val {
    return this.two("rotl", other);
  }
  rotr(other: Operand): Val {
    return this.two("rotr", other);
  }
  /** All bits inverted (integers). */
  not(): Val {
    return this.two("xor", -1);
  }
  /** Two's complement or sign change. */
  neg(): Val {
    return this.type === "f32" || this.type === "f64"
      ? build(findOpOf(this.type, "neg"), NO_LANES, [this])
      : constantOf(this.type, 0).two("sub", this);
  }
  eq(other: Operand): Val {
    return isZero(other) && (this.type === "i32" || this.type === "i64") ? this.eqz() : this.two("eq", other);
  }
  ne(other: Operand): Val {
    return this.two("ne", other);
  }
  ltS(other: Operand): Val {
    return this.two("lt_s", other);
  }
  ltU(other: Operand): Val {
    return this.two("lt_u", other);
  }
  gtS(other: Operand): Val {
    return this.two("gt_s", other);
  }
  gtU(other: Operand): Val {
    return this.two("gt_u", other);
  }
  leS(other: Operand): Val {
    return this.two("le_s", other);
  }
  leU(other: Operand): Val {
    return this.two("le_u", other);
  }
  geS(other: Operand): Val {
    return this.two("ge_s", other);
  }
  geU(other: Operand): Val {
    return this.two("ge_u", other);
  }
  /** Ordered comparisons of floating-point values. */
  lt(other: Operand): Val {
    return this.two("lt", other);
  }
  gt(other: Operand): Val {
    return this.two("gt", other);
  }
  le(other: Operand): Val {
    return this.two("le", other);
  }
  ge(other: Operand): Val {
    return this.two("ge", other);
  }
  eqz(): Val {
    return build(findOpOf(this.type, "eqz"), NO_LANES, [this]);
  }
  clz(): Val {
    return build(findOpOf(this.type, "clz"), NO_LANES, [this]);
  }
  ctz(): Val {
    return build(findOpOf(this.type, "ctz"), NO_LANES, [this]);
  }
  popcnt(): Val {
    return build(findOpOf(this.type, "popcnt"), NO_LANES, [this]);
  }
  /** Sign extension from the low 8, 16 or 32 bits within the same type. */
  extend(bits: 8 | 16 | 32): Val {
    return bits === 32 && this.type === "i32" ? this : op(`${this.type}.extend${bits}_s`, this);
  }
  /** i64 to i32; an i32 stays. */
  wrap(): Val {
    return this.type === "i32" ? this : build(WRAP, NO_LANES, [this]);
  }
  /** i32 to i64, zero-extended; an i64 stays. */
  zx(): Val {
    return this.type === "i64" ? this : build(EXTEND_U, NO_LANES, [this]);
  }
  /** i32 to i64, sign-extended; an i64 stays. */
  sx(): Val {
    return this.type === "i64" ? this : build(EXTEND_S, NO_LANES, [this]);
  }
  /** A bit field: `width` bits from bit `at`, zero-extended. */
  bits(at: number, width: number): Val {
    const mask = this.type === "i32" ? 2 ** width - 1 : (1n << BigInt(width)) - 1n;
    return this.shrU(at).and(mask);
  }
}

export class Const extends Val {
  private readonly value: number | bigint;

  constructor(type: ValType, value: number | bigint) {
    super(type);
    this.value = value;
  }

  override get constant(): number | bigint {
    return this.value;
  }

  emit(out: ByteWriter): void {
    if (this.type === "i32") {
      out.u8(0x41);
      out.s32(this.value as number);
    } else if (this.type === "i64") {
      out.u8(0x42);
      out.s64(this.value as bigint);
    } else if (this.type === "f32") {
      out.u8(0x43);
      out.f32(this.value as number);
    } else {
      out.u8(0x44);
      out.f64(this.value as number);
    }
  }
}

class VectorConst extends Val {
  private readonly bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    super("v128");
    this.bytes = bytes;
  }

  override get isZeroVector(): boolean {
    return this.bytes.every((byte) => byte === 0);
  }

  emit(out: ByteWriter): void {
    out.u8(0xfd);
    out.u32(12);
    out.raw(this.bytes);
  }
}

class Operation extends Val {
  readonly op: Op;
  readonly args: readonly Val[];
  private readonly lanes: readonly number[];

  constructor(operation: Op, args: readonly Val[], lanes: readonly number[]) {
    super(operation.result);
    this.op = operation;
    this.args = args;
    this.lanes = lanes;
  }

  emit(out: ByteWriter): void {
    for (const arg of this.args) arg.emit(out);
    if (this.op.prefix === 0) out.u8(this.op.code);
    else {
      out.u8(this.op.prefix);
      out.u32(this.op.code);
    }
    for (const lane of this.lanes) out.u8(lane);
  }
}

class Select extends Val {
  private readonly condition: Val;
  private readonly whenTrue: Val;
  private readonly whenFalse: Val;

  constructor(condition: Val, whenTrue: Val, whenFalse: Val) {
    super(whenTrue.type);
    this.condition = condition;
    this.whenTrue = whenTrue;
    this.whenFalse = whenFalse;
  }

  emit(out: ByteWriter): void {
    this.whenTrue.emit(out);
    this.whenFalse.emit(out);
    this.condition.emit(out);
    if (this.type === "v128" || this.type === "funcref") {
      out.u8(0x1c);
      out.u8(1);
      out.u8(VAL_TYPE_CODE[this.type]);
    } else out.u8(0x1b);
  }
}

function isZero(value: Operand): boolean {
  if (value instanceof Val)
    return (value.type === "i32" || value.type === "i64") && (value.constant === 0 || value.constant === 0n);
  return value === 0 || value === 0n;
}

/** A constant of a given type. Integers may be given as number or bigint, signed or unsigned. */
export function constantOf(type: ValType, value: number | bigint): Const {
  if (type === "i32") return new Const(type, typeof value === "bigint" ? Number(BigInt.asIntN(32, value)) : value | 0);
  if (type === "i64") return new Const(type, BigInt.asIntN(64, BigInt(value)));
  if (type === "f32" || type === "f64") return new Const(type, Number(value));
  throw new TypeError(`a ${type} has no scalar constant`);
}

export const i32 = (value: number | bigint): Val => constantOf("i32", value);
export const i64 = (value: number | bigint): Val => constantOf("i64", value);
export const f32 = (value: number): Val => constantOf("f32", value);
export const f64 = (value: number): Val => constantOf("f64", value);

/** A vector constant of two 64-bit halves. */
export function v128(low: bigint, high: bigint): Val {
  return new VectorConst(
    new Uint8Array(new BigUint64Array([BigInt.asUintN(64, low), BigInt.asUintN(64, high)]).buffer),
  );
}

export function asVal(value: Operand, type: ValType): Val {
  return value instanceof Val ? value : constantOf(type, value);
}

/** Folding of what address arithmetic and operand decoding produce; anything else is left to the engine underneath. */
const FOLD_32: { readonly [name: string]: (a: number, b: number) => number } = {
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => Math.imul(a, b),
  and: (a, b) => a & b,
  or: (a, b) => a | b,
  xor: (a, b) => a ^ b,
  shl: (a, b) => a << b,
  shr_u: (a, b) => a >>> b,
  shr_s: (a, b) => a >> b,
  eq: (a, b) => Number(a === b),
  ne: (a, b) => Number(a !== b),
  eqz: (a) => Number(a === 0),
};

const FOLD_64: { readonly [name: string]: (a: bigint, b: bigint) => bigint } = {
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => a * b,
  and: (a, b) => a & b,
  or: (a, b) => a | b,
  xor: (a, b) => a ^ b,
  shl: (a, b) => a << (b & 63n),
  shr_u: (a, b) => BigInt.asUintN(64, a) >> (b & 63n),
  shr_s: (a, b) => a >> (b & 63n),
  eq: (a, b) => BigInt(a === b),
  ne: (a, b) => BigInt(a !== b),
  eqz: (a) => BigInt(a === 0n),
};

/** The value whose bits another type's value is made of, where it is. */
export function reinterpreted(value: Val): Val | undefined {
  return value instanceof Operation && REINTERPRETATIONS.has(value.op) ? value.args[0] : undefined;
}

const ADD = findOp("i64.add");
const SUBTRACT = findOp("i64.sub");

/** The parts of an i64 that is the sum of a value and a constant. */
export function sumWithConstant(value: Val): { readonly base: Val; readonly constant: bigint } | undefined {
  if (!(value instanceof Operation) || (value.op !== ADD && value.op !== SUBTRACT)) return undefined;
  const [base, other] = value.args;
  const { constant } = other;
  if (typeof constant !== "bigint") return undefined;
  return { base, constant: value.op === ADD ? constant : -constant };
}

type Folder = (a: number | bigint, b: number | bigint) => Val;

/** How operations on constants are computed. */
const FOLDERS = new Map<Op, Folder>([
  [EXTEND_U, (a) => constantOf("i64", (a as number) >>> 0)],
  [EXTEND_S, (a) => constantOf("i64", a)],
  [WRAP, (a) => constantOf("i32", a)],
]);
for (const [name, folded] of Object.entries(FOLD_32))
  FOLDERS.set(findOp(`i32.${name}`), (a, b) => constantOf("i32", folded(a as number, b as number)));
for (const [name, folded] of Object.entries(FOLD_64)) {
  const operation = findOp(`i64.${name}`);
  FOLDERS.set(operation, (a, b) => constantOf(operation.result, folded(a as bigint, BigInt(b))));
}

function fold(operation: Op, args: readonly Val[]): Val | undefined {
  const [first] = args;
  const a = first.constant;
  if (a !== undefined) {
    const b = args.length > 1 ? args[1].constant : 0;
    return b === undefined ? undefined : FOLDERS.get(operation)?.(a, b);
  }
  if (REINTERPRETATIONS.has(operation)) {
    const inner = reinterpreted(first);
    return inner?.type === operation.result ? inner : undefined;
  }
  return operation === VECTOR_XOR && first === args[1] ? v128(0n, 0n) : undefined;
}

/** Any operation by its text-format name, for instance `op("i32x4.add", a, b)`. A wrong operand type or count is an error. */
export function op(name: string, ...operands: Operand[]): Val {
  return laneOp(name, [], ...operands);
}

/** An operation with lane immediates: `laneOp("i16x8.extract_lane_u", [3], v)`, `laneOp("i8x16.shuffle", [16 lanes], a, b)`. */
export function laneOp(name: string, lanes: readonly number[], ...operands: Operand[]): Val {
  const operation = findOp(name);
  if (operands.length !== operation.params.length) {
    throw new TypeError(`${name} takes ${operation.params.length} operands, not ${operands.length}`);
  }
  if (lanes.length !== operation.lanes)
    throw new TypeError(`${name} takes ${operation.lanes} lane immediates, not ${lanes.length}`);
  return build(
    operation,
    lanes,
    operands.map((operand, i) => asVal(operand, operation.params[i])),
  );
}

function build(operation: Op, lanes: readonly number[], args: readonly Val[]): Val {
  const { params } = operation;
  for (let i = 0; i < params.length; i++) {
    if (args[i].type !== params[i])
      throw new TypeError(`operand ${i} of ${operation.name} must be ${params[i]}, not ${args[i].type}`);
  }
  return fold(operation, args) ?? new Operation(operation, args, lanes);
}

/** `whenTrue` if the i32 condition is not zero, else `whenFalse`; both are computed. */
export function select(condition: Val, whenTrue: Operand, whenFalse: Operand): Val {
  const type = whenTrue instanceof Val ? whenTrue.type : whenFalse instanceof Val ? whenFalse.type : undefined;
  if (type === undefined) throw new TypeError("select needs one operand whose type is known");
  const a = asVal(whenTrue, type);
  const b = asVal(whenFalse, type);
  if (a.type !== b.type) throw new TypeError(`select between ${a.type} and ${b.type}`);
  if (condition.type !== "i32") throw new TypeError(`the condition of a select must be i32, not ${condition.type}`);
  if (condition.constant !== undefined) return condition.constant !== 0 ? a : b;
  return new Select(condition, a, b);
}
