// WebAssembly instructions that only take operands and give a result, as data: name, opcode and signature
// (WebAssembly Core Specification, 5.4 and the threads and SIMD opcode tables there).

export type ValType = "i32" | "i64" | "f32" | "f64" | "v128" | "funcref";

export const VAL_TYPE_CODE: { readonly [type in ValType]: number } = {
  i32: 0x7f,
  i64: 0x7e,
  f32: 0x7d,
  f64: 0x7c,
  v128: 0x7b,
  funcref: 0x70,
};

export interface Op {
  readonly name: string;
  readonly code: number;
  /** 0 for a one-byte opcode, else the prefix byte. */
  readonly prefix: number;
  readonly params: readonly ValType[];
  readonly result: ValType;
  /** Number of lane immediates that follow (0, 1, or 16 for a shuffle). */
  readonly lanes: number;
}

const LETTER: { readonly [letter: string]: ValType } = { i: "i32", l: "i64", f: "f32", d: "f64", v: "v128" };

/** Signatures are written as operand letters, a colon and the result: i = i32, l = i64, f = f32, d = f64, v = v128. */
const TABLE: readonly (readonly [prefix: number, signature: string, lanes: number, ops: string])[] = [
  [0, "i:i", 0, "i32.eqz=45 i32.clz=67 i32.ctz=68 i32.popcnt=69 i32.extend8_s=c0 i32.extend16_s=c1"],
  [
    0,
    "ii:i",
    0,
    "i32.eq=46 i32.ne=47 i32.lt_s=48 i32.lt_u=49 i32.gt_s=4a i32.gt_u=4b i32.le_s=4c i32.le_u=4d i32.ge_s=4e i32.ge_u=4f " +
      "i32.add=6a i32.sub=6b i32.mul=6c i32.div_s=6d i32.div_u=6e i32.rem_s=6f i32.rem_u=70 i32.and=71 i32.or=72 i32.xor=73 " +
      "i32.shl=74 i32.shr_s=75 i32.shr_u=76 i32.rotl=77 i32.rotr=78",
  ],
  [0, "l:i", 0, "i64.eqz=50 i32.wrap_i64=a7"],
  [
    0,
    "ll:i",
    0,
    "i64.eq=51 i64.ne=52 i64.lt_s=53 i64.lt_u=54 i64.gt_s=55 i64.gt_u=56 i64.le_s=57 i64.le_u=58 i64.ge_s=59 i64.ge_u=5a",
  ],
  [0, "l:l", 0, "i64.clz=79 i64.ctz=7a i64.popcnt=7b i64.extend8_s=c2 i64.extend16_s=c3 i64.extend32_s=c4"],
  [
    0,
    "ll:l",
    0,
    "i64.add=7c i64.sub=7d i64.mul=7e i64.div_s=7f i64.div_u=80 i64.rem_s=81 i64.rem_u=82 i64.and=83 i64.or=84 i64.xor=85 " +
      "i64.shl=86 i64.shr_s=87 i64.shr_u=88 i64.rotl=89 i64.rotr=8a",
  ],
  [0, "ff:i", 0, "f32.eq=5b f32.ne=5c f32.lt=5d f32.gt=5e f32.le=5f f32.ge=60"],
  [0, "dd:i", 0, "f64.eq=61 f64.ne=62 f64.lt=63 f64.gt=64 f64.le=65 f64.ge=66"],
  [0, "f:f", 0, "f32.abs=8b f32.neg=8c f32.ceil=8d f32.floor=8e f32.trunc=8f f32.nearest=90 f32.sqrt=91"],
  [0, "ff:f", 0, "f32.add=92 f32.sub=93 f32.mul=94 f32.div=95 f32.min=96 f32.max=97 f32.copysign=98"],
  [0, "d:d", 0, "f64.abs=99 f64.neg=9a f64.ceil=9b f64.floor=9c f64.trunc=9d f64.nearest=9e f64.sqrt=9f"],
  [0, "dd:d", 0, "f64.add=a0 f64.sub=a1 f64.mul=a2 f64.div=a3 f64.min=a4 f64.max=a5 f64.copysign=a6"],
  [0, "f:i", 0, "i32.trunc_f32_s=a8 i32.trunc_f32_u=a9 i32.reinterpret_f32=bc"],
  [0, "d:i", 0, "i32.trunc_f64_s=aa i32.trunc_f64_u=ab"],
  [0, "i:l", 0, "i64.extend_i32_s=ac i64.extend_i32_u=ad"],
  [0, "f:l", 0, "i64.trunc_f32_s=ae i64.trunc_f32_u=af"],
  [0, "d:l", 0, "i64.trunc_f64_s=b0 i64.trunc_f64_u=b1 i64.reinterpret_f64=bd"],
  [0, "i:f", 0, "f32.convert_i32_s=b2 f32.convert_i32_u=b3 f32.reinterpret_i32=be"],
  [0, "l:f", 0, "f32.convert_i64_s=b4 f32.convert_i64_u=b5"],
  [0, "d:f", 0, "f32.demote_f64=b6"],
  [0, "i:d", 0, "f64.convert_i32_s=b7 f64.convert_i32_u=b8"],
  [0, "l:d", 0, "f64.convert_i64_s=b9 f64.convert_i64_u=ba f64.reinterpret_i64=bf"],
  [0, "f:d", 0, "f64.promote_f32=bb"],
  [0xfc, "f:i", 0, "i32.trunc_sat_f32_s=0 i32.trunc_sat_f32_u=1"],
  [0xfc, "d:i", 0, "i32.trunc_sat_f64_s=2 i32.trunc_sat_f64_u=3"],
  [0xfc, "f:l", 0, "i64.trunc_sat_f32_s=4 i64.trunc_sat_f32_u=5"],
  [0xfc, "d:l", 0, "i64.trunc_sat_f64_s=6 i64.trunc_sat_f64_u=7"],
  [0xfd, "vv:v", 16, "i8x16.shuffle=d"],
  [0xfd, "i:v", 0, "i8x16.splat=f i16x8.splat=10 i32x4.splat=11"],
  [0xfd, "l:v", 0, "i64x2.splat=12"],
  [0xfd, "f:v", 0, "f32x4.splat=13"],
  [0xfd, "d:v", 0, "f64x2.splat=14"],
  [
    0xfd,
    "v:i",
    1,
    "i8x16.extract_lane_s=15 i8x16.extract_lane_u=16 i16x8.extract_lane_s=18 i16x8.extract_lane_u=19 i32x4.extract_lane=1b",
  ],
  [0xfd, "v:l", 1, "i64x2.extract_lane=1d"],
  [0xfd, "v:f", 1, "f32x4.extract_lane=1f"],
  [0xfd, "v:d", 1, "f64x2.extract_lane=21"],
  [0xfd, "vi:v", 1, "i8x16.replace_lane=17 i16x8.replace_lane=1a i32x4.replace_lane=1c"],
  [0xfd, "vl:v", 1, "i64x2.replace_lane=1e"],
  [0xfd, "vf:v", 1, "f32x4.replace_lane=20"],
  [0xfd, "vd:v", 1, "f64x2.replace_lane=22"],
  [
    0xfd,
    "vv:v",
    0,
    "i8x16.swizzle=e " +
      "i8x16.eq=23 i8x16.ne=24 i8x16.lt_s=25 i8x16.lt_u=26 i8x16.gt_s=27 i8x16.gt_u=28 i8x16.le_s=29 i8x16.le_u=2a i8x16.ge_s=2b i8x16.ge_u=2c " +
      "i16x8.eq=2d i16x8.ne=2e i16x8.lt_s=2f i16x8.lt_u=30 i16x8.gt_s=31 i16x8.gt_u=32 i16x8.le_s=33 i16x8.le_u=34 i16x8.ge_s=35 i16x8.ge_u=36 " +
      "i32x4.eq=37 i32x4.ne=38 i32x4.lt_s=39 i32x4.lt_u=3a i32x4.gt_s=3b i32x4.gt_u=3c i32x4.le_s=3d i32x4.le_u=3e i32x4.ge_s=3f i32x4.ge_u=40 " +
      "f32x4.eq=41 f32x4.ne=42 f32x4.lt=43 f32x4.gt=44 f32x4.le=45 f32x4.ge=46 f64x2.eq=47 f64x2.ne=48 f64x2.lt=49 f64x2.gt=4a f64x2.le=4b f64x2.ge=4c " +
      "i64x2.eq=d6 i64x2.ne=d7 i64x2.lt_s=d8 i64x2.gt_s=d9 i64x2.le_s=da i64x2.ge_s=db " +
      "v128.and=4e v128.andnot=4f v128.or=50 v128.xor=51 " +
      "i8x16.narrow_i16x8_s=65 i8x16.narrow_i16x8_u=66 i8x16.add=6e i8x16.add_sat_s=6f i8x16.add_sat_u=70 i8x16.sub=71 i8x16.sub_sat_s=72 " +
      "i8x16.sub_sat_u=73 i8x16.min_s=76 i8x16.min_u=77 i8x16.max_s=78 i8x16.max_u=79 i8x16.avgr_u=7b " +
      "i16x8.q15mulr_sat_s=82 i16x8.narrow_i32x4_s=85 i16x8.narrow_i32x4_u=86 i16x8.add=8e i16x8.add_sat_s=8f i16x8.add_sat_u=90 i16x8.sub=91 " +
      "i16x8.sub_sat_s=92 i16x8.sub_sat_u=93 i16x8.mul=95 i16x8.min_s=96 i16x8.min_u=97 i16x8.max_s=98 i16x8.max_u=99 i16x8.avgr_u=9b " +
      "i16x8.extmul_low_i8x16_s=9c i16x8.extmul_high_i8x16_s=9d i16x8.extmul_low_i8x16_u=9e i16x8.extmul_high_i8x16_u=9f " +
      "i32x4.add=ae i32x4.sub=b1 i32x4.mul=b5 i32x4.min_s=b6 i32x4.min_u=b7 i32x4.max_s=b8 i32x4.max_u=b9 i32x4.dot_i16x8_s=ba " +
      "i32x4.extmul_low_i16x8_s=bc i32x4.extmul_high_i16x8_s=bd i32x4.extmul_low_i16x8_u=be i32x4.extmul_high_i16x8_u=bf " +
      "i64x2.add=ce i64x2.sub=d1 i64x2.mul=d5 i64x2.extmul_low_i32x4_s=dc i64x2.extmul_high_i32x4_s=dd i64x2.extmul_low_i32x4_u=de i64x2.extmul_high_i32x4_u=df " +
      "f32x4.add=e4 f32x4.sub=e5 f32x4.mul=e6 f32x4.div=e7 f32x4.min=e8 f32x4.max=e9 f32x4.pmin=ea f32x4.pmax=eb " +
      "f64x2.add=f0 f64x2.sub=f1 f64x2.mul=f2 f64x2.div=f3 f64x2.min=f4 f64x2.max=f5 f64x2.pmin=f6 f64x2.pmax=f7",
  ],
  [0xfd, "vvv:v", 0, "v128.bitselect=52"],
  [
    0xfd,
    "v:i",
    0,
    "v128.any_true=53 i8x16.all_true=63 i8x16.bitmask=64 i16x8.all_true=83 i16x8.bitmask=84 i32x4.all_true=a3 i32x4.bitmask=a4 " +
      "i64x2.all_true=c3 i64x2.bitmask=c4",
  ],
  [
    0xfd,
    "v:v",
    0,
    "v128.not=4d f32x4.demote_f64x2_zero=5e f64x2.promote_low_f32x4=5f i8x16.abs=60 i8x16.neg=61 i8x16.popcnt=62 " +
      "f32x4.ceil=67 f32x4.floor=68 f32x4.trunc=69 f32x4.nearest=6a f64x2.ceil=74 f64x2.floor=75 f64x2.trunc=7a f64x2.nearest=94 " +
      "i16x8.extadd_pairwise_i8x16_s=7c i16x8.extadd_pairwise_i8x16_u=7d i32x4.extadd_pairwise_i16x8_s=7e i32x4.extadd_pairwise_i16x8_u=7f " +
      "i16x8.abs=80 i16x8.neg=81 i16x8.extend_low_i8x16_s=87 i16x8.extend_high_i8x16_s=88 i16x8.extend_low_i8x16_u=89 i16x8.extend_high_i8x16_u=8a " +
      "i32x4.abs=a0 i32x4.neg=a1 i32x4.extend_low_i16x8_s=a7 i32x4.extend_high_i16x8_s=a8 i32x4.extend_low_i16x8_u=a9 i32x4.extend_high_i16x8_u=aa " +
      "i64x2.abs=c0 i64x2.neg=c1 i64x2.extend_low_i32x4_s=c7 i64x2.extend_high_i32x4_s=c8 i64x2.extend_low_i32x4_u=c9 i64x2.extend_high_i32x4_u=ca " +
      "f32x4.abs=e0 f32x4.neg=e1 f32x4.sqrt=e3 f64x2.abs=ec f64x2.neg=ed f64x2.sqrt=ef " +
      "i32x4.trunc_sat_f32x4_s=f8 i32x4.trunc_sat_f32x4_u=f9 f32x4.convert_i32x4_s=fa f32x4.convert_i32x4_u=fb " +
      "i32x4.trunc_sat_f64x2_s_zero=fc i32x4.trunc_sat_f64x2_u_zero=fd f64x2.convert_low_i32x4_s=fe f64x2.convert_low_i32x4_u=ff",
  ],
  [
    0xfd,
    "vi:v",
    0,
    "i8x16.shl=6b i8x16.shr_s=6c i8x16.shr_u=6d i16x8.shl=8b i16x8.shr_s=8c i16x8.shr_u=8d i32x4.shl=ab i32x4.shr_s=ac i32x4.shr_u=ad " +
      "i64x2.shl=cb i64x2.shr_s=cc i64x2.shr_u=cd",
  ],
];

function readTable(): Map<string, Op> {
  const ops = new Map<string, Op>();
  for (const [prefix, signature, lanes, list] of TABLE) {
    const [params, result] = signature.split(":");
    for (const entry of list.split(" ")) {
      const [name, code] = entry.split("=");
      ops.set(name, {
        name,
        prefix,
        lanes,
        code: Number.parseInt(code, 16),
        params: [...params].map((letter) => LETTER[letter]),
        result: LETTER[result],
      });
    }
  }
  return ops;
}

const OPS = readTable();

/** Looks an operation up by its name in the text format; an unknown name is an error. */
export function findOp(name: string): Op {
  const op = OPS.get(name);
  if (op === undefined) throw new Error(`there is no WebAssembly operation ${name}`);
  return op;
}

/** The operations of each type by the rest of their names, which are literals wherever code is written: much quicker to find. */
const OPS_OF_TYPE = new Map<string, Map<string, Op>>();
for (const [name, operation] of OPS) {
  const dot = name.indexOf(".");
  const type = name.slice(0, dot);
  const ofType = OPS_OF_TYPE.get(type);
  if (ofType === undefined) OPS_OF_TYPE.set(type, new Map([[name.slice(dot + 1), operation]]));
  else ofType.set(name.slice(dot + 1), operation);
}

/** The same for `type.name`. */
export function findOpOf(type: ValType, name: string): Op {
  return OPS_OF_TYPE.get(type)?.get(name) ?? findOp(`${type}.${name}`);
}

export function allOps(): Iterable<Op> {
  return OPS.values();
}
