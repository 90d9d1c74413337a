// The decoder against iced-x86: every opcode with every ModRM byte, SIB byte and prefix that means something, in 16-, 32- and 64-bit code.
// Lengths, operands and undefined encodings must agree; what iced knows and the table does not is listed here by name.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Decoder, DecoderOptions, EncodingKind, Instruction, Register } from "iced-x86";
import { PSEUDO } from "../../src/cpu/decoder.ts";
import { buildEngineModule } from "../../src/cpu/engine-module.ts";
import { INLINE_HANDLERS } from "../../src/cpu/inline-handlers.ts";
import { BLOCK, RECORD, STEP_BLOCK, VAR } from "../../src/cpu/layout.ts";
import { INSTRUCTIONS } from "../../src/isa/table.ts";
import {
  type CodeBits,
  Decoded,
  icedOperand,
  icedWidth,
  mnemonicOf,
  sameMnemonic,
  withoutOverride,
} from "./decoded.ts";
import { AT, Rig } from "./rig.ts";

const SLOT = 32;
const BATCH = 8192;
const CODE = AT.DATA;

/** What iced decodes and the table has not, so that it is #UD. */
const NOT_HAD: { readonly [why: string]: readonly string[] } = {
  "virtualization, which CPUID does not report": words(
    "VMCALL VMLAUNCH VMRESUME VMXOFF VMXON VMFUNC VMREAD VMWRITE VMPTRLD VMPTRST VMCLEAR INVEPT INVVPID VMRUN VMMCALL VMLOAD VMSAVE STGI CLGI SKINIT INVLPGA VMGEXIT TDCALL",
  ),
  "extensions that CPUID does not report": words(
    "AADD AAND AOR AXOR ADCX ADOX SHA1MSG1 SHA1MSG2 SHA1NEXTE SHA1RNDS4 SHA256MSG1 SHA256MSG2 SHA256RNDS2 GF2P8AFFINEINVQB GF2P8AFFINEQB GF2P8MULB",
    "XABORT XBEGIN XEND XTEST XSUSLDTRK XRESLDTRK XSAVES XSAVES64 XRSTORS XRSTORS64 MONITOR MWAIT TPAUSE UMONITOR UMWAIT ENQCMD ENQCMDS MOVDIR64B MOVDIRI PTWRITE SERIALIZE",
    "CLRSSBSY INCSSPD INCSSPQ RSTORSSP SAVEPREVSSP SETSSBSY WRSSD WRUSSD RDPKRU WRPKRU PCONFIG WRMSRNS ENCLS ENCLU ENCLV GETSEC GETSECQ",
    "AESDEC128KL AESDEC256KL AESENC128KL AESENC256KL AESENCWIDE128KL ENCODEKEY128 ENCODEKEY256 LOADIWKEY",
    "CLUI STUI TESTUI UIRET SENDUIPI RDMSRLIST WRMSRLIST ERETS ERETU LKGS SEAMCALL SEAMOPS SEAMRET PBNDKB",
  ),
  "AMD's and VIA's own": words(
    "CLZERO EXTRQ INSERTQ MOVNTSD MOVNTSS FEMMS INVLPGB TLBSYNC MCOMMIT MONITORX MWAITX PVALIDATE RDPRU PSMASH RMPADJUST RMPUPDATE RMPQUERY",
    "MONTMUL XCRYPTCBC XCRYPTCFB XCRYPTCTR XCRYPTECB XCRYPTOFB XSHA1 XSHA256 XSHA512 XSHA512_ALT XSTORE XSTORE_ALT CCS_ENCRYPT CCS_HASH UNDOC",
  ),
  "AMD's SYSCALL outside of 64-bit mode": words("SYSCALL SYSRET"),
  "system management mode": words("RSM"),
  undocumented: words("SALC"),
  "0F 0D with a register: a no-operation for Intel, undefined for AMD": words("RESERVEDNOP"),
};
const NOT_HAD_NAMES = new Set(Object.values(NOT_HAD).flat());

function words(...lines: readonly string[]): string[] {
  return lines.flatMap((line) => line.split(" "));
}

/** Deterministic bytes for displacements and immediates. */
function noise(seed: number): number {
  const mixed = Math.imul(seed ^ 0x5bd1e995, 0x9e3779b1);
  return (mixed >>> 11) & 0xff;
}

interface Failure {
  readonly bytes: string;
  readonly why: string;
}

class Comparison {
  readonly #rig = new Rig();
  readonly #cpu = new DataView(this.#rig.engine.memory.buffer);
  readonly #decode = (
    Reflect.get(this.#rig.engine, "exports") as {
      decodeBlock(linear: bigint, host: number, most: number, block: number): number;
    }
  ).decodeBlock;
  readonly #handlers = buildEngineModule(INSTRUCTIONS, INLINE_HANDLERS, { ramPages: 1 }).plan.handlers;
  readonly #bits: CodeBits;
  readonly #batch = new Uint8Array(BATCH * SLOT);
  #filled = 0;
  compared = 0;
  readonly failures = new Map<string, Failure[]>();
  readonly unknown = new Map<string, string>();

  constructor(bits: CodeBits) {
    this.#bits = bits;
    this.#rig.longMode();
    this.#cpu.setUint32(VAR.CODE_MODE, bits === 64 ? 2 : bits === 32 ? 1 : 0, true);
  }

  /** Adds an encoding; what follows it is filled with noise. */
  add(bytes: readonly number[]): void {
    const at = this.#filled * SLOT;
    this.#batch.set(bytes, at);
    for (let k = bytes.length; k < SLOT; k++)
      this.#batch[at + k] = noise(k * 7919 + bytes[bytes.length - 1] * 131 + this.compared + this.#filled);
    if (++this.#filled === BATCH) this.flush();
  }

  flush(): void {
    this.#rig.bytes.set(this.#batch, CODE);
    const decoder = new Decoder(this.#bits, this.#batch, DecoderOptions.None);
    const instruction = new Instruction();
    const record = STEP_BLOCK + BLOCK.SIZE;
    for (let n = 0; n < this.#filled; n++) {
      const linear = CODE + n * SLOT;
      decoder.position = n * SLOT;
      decoder.ip = BigInt(linear);
      decoder.decodeOut(instruction);
      this.#decode(BigInt(linear), linear, 1, STEP_BLOCK);
      this.#compare(instruction, record, n);
    }
    this.compared += this.#filled;
    this.#filled = 0;
    instruction.free();
    decoder.free();
  }

  #fail(n: number, key: string, why: string): void {
    const list = this.failures.get(key) ?? [];
    this.failures.set(key, list);
    if (list.length < 3) {
      const bytes = [...this.#batch.subarray(n * SLOT, n * SLOT + 15)]
        .map((b) => b.toString(16).padStart(2, "0"))
        .join(" ");
      list.push({ bytes, why });
    } else list.push(list[2]);
  }

  #compare(iced: Instruction, record: number, n: number): void {
    const handler = this.#cpu.getUint16(record + RECORD.HANDLER, true);
    const spec = this.#handlers[handler];
    if (iced.isInvalid) {
      // Which segment, control and debug registers exist is for the semantics to say.
      const numbered = spec?.row.operands.some(({ kind }) => kind.length === 1 && "SCD".includes(kind)) ?? false;
      if (spec !== undefined && !numbered)
        this.#fail(n, `${spec.row.instruction.name} where nothing is`, `decoded as ${spec.name}`);
      return;
    }
    const name = mnemonicOf(iced);
    if (spec === undefined) {
      if (handler === PSEUDO.TOO_LONG) this.#fail(n, "too long", name);
      else if (iced.encoding === EncodingKind.Legacy && !NOT_HAD_NAMES.has(name)) {
        this.unknown.set(
          name,
          [...this.#batch.subarray(n * SLOT, n * SLOT + 15)].map((b) => b.toString(16).padStart(2, "0")).join(" "),
        );
      }
      return;
    }
    if (!sameMnemonic(spec, name)) {
      this.#fail(n, `${spec.row.instruction.name} for ${name}`, spec.name);
      return;
    }
    const length = this.#cpu.getUint16(record + RECORD.PLACE, true) >> 12;
    if (length !== iced.length) {
      this.#fail(n, `length of ${name}`, `${length}, not ${iced.length}`);
      return;
    }
    const decoded = new Decoded(this.#cpu, record, spec, { bits: this.#bits, linear: CODE + n * SLOT });
    const x87 = spec.row.map === 0 && spec.row.opcode >> 3 === 0x1b;
    if (iced.opCount === 0) return;
    // Operands that iced names and the row leaves to the semantics: AL or eAX of IN, (E)DI of MASKMOVQ.
    const offset =
      /^(IN|MASKMOV)/.test(spec.row.instruction.name) && !spec.row.options.has("string")
        ? iced.opCount - spec.row.operands.length
        : 0;
    spec.row.operands.forEach((operand, n0) => {
      const k = n0 + offset;
      if (x87 && operand.kind === "N") {
        // iced names ST(0) too, on whichever side it is.
        const wanted = decoded.operand(n0, 0).replace("m", "f");
        const given = Array.from({ length: iced.opCount }, (_, i) => icedOperand(iced, i, decoded.addressBits));
        if (!given.includes(wanted)) this.#fail(n, `operands of ${name}`, `${wanted}, not ${given.join(", ")}`);
        return;
      }
      const at =
        x87 && iced.opCount > 1 && operand.kind === "M"
          ? iced.opCount - 1 - (icedOperand(iced, 0, 64) === "f0" ? 0 : 1)
          : k;
      if (at >= iced.opCount) {
        this.#fail(n, `operands of ${name}`, `no operand ${k}`);
        return;
      }
      const plain =
        this.#bits === 64 && iced.segmentPrefix !== Register.None ? withoutOverride : (text: string): string => text;
      const wanted = plain(icedOperand(iced, at, decoded.addressBits));
      const got = plain(decoded.operand(n0, icedWidth(iced, at)));
      if (got !== wanted) this.#fail(n, `operand ${k} of ${name}`, `${got}, not ${wanted}`);
    });
  }
}

const MANDATORY: readonly (readonly number[])[] = [[], [0x66], [0xf2], [0xf3], [0x66, 0xf2], [0x66, 0xf3]];
const OTHER: readonly (readonly number[])[] = [
  [0xf0],
  [0x67],
  [0x66, 0x67],
  [0x2e],
  [0x26],
  [0x64],
  [0x65, 0x66],
  [0x64, 0x36],
  [0xf2, 0xf3],
  [0xf3, 0xf2],
  [0xf0, 0x66],
  [0xf0, 0xf2],
  [0x67, 0xf0, 0x65],
];
const REX = [0x40, 0x41, 0x42, 0x44, 0x48, 0x4f];
const ESCAPES: readonly (readonly number[])[] = [[], [0x0f], [0x0f, 0x38], [0x0f, 0x3a]];
/** One of each kind of ModRM byte: each mod with SIB, displacement only, plain. */
const MODRM_SAMPLE = [
  0x04, 0x05, 0x06, 0x0b, 0x14, 0x1d, 0x44, 0x4d, 0x53, 0x62, 0x84, 0x8d, 0x95, 0x9e, 0xa7, 0xc0, 0xc9, 0xd2, 0xdb,
  0xe4, 0xed, 0xf6, 0xff, 0x28, 0x30, 0x38,
];

function isPrefix(byte: number, bits: CodeBits): boolean {
  return (
    [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x0f].includes(byte) ||
    (bits === 64 && byte >> 4 === 4)
  );
}

function enumerate(bits: CodeBits, comparison: Comparison): void {
  const rex = bits === 64 ? REX : [];
  for (const opening of ESCAPES) {
    for (let opcode = 0; opcode < 256; opcode++) {
      if (opening.length === 0 && isPrefix(opcode, bits)) continue;
      if (opening.length === 1 && (opcode === 0x38 || opcode === 0x3a)) continue;
      const map = opening[1] === 0x38 ? 2 : opening[1] === 0x3a ? 3 : opening.length;
      const sparse = map >= 2 && !DESCRIBED.has((map << 8) | opcode);
      const all = Array.from({ length: sparse ? 8 : 256 }, (_, k) => (sparse ? k * 33 : k));
      for (const prefix of MANDATORY) for (const modrm of all) comparison.add([...prefix, ...opening, opcode, modrm]);
      if (sparse) continue;
      for (const prefix of OTHER)
        for (const modrm of MODRM_SAMPLE) comparison.add([...prefix, ...opening, opcode, modrm]);
      for (const prefix of MANDATORY.slice(0, 4))
        for (const byte of rex)
          for (const modrm of MODRM_SAMPLE) comparison.add([...prefix, byte, ...opening, opcode, modrm]);
    }
  }
  // Every SIB byte with every mod, with and without REX and address size.
  for (const prefix of [[], [0x67], [0x64], ...rex.map((byte) => [byte]), ...rex.map((byte) => [0x67, byte])]) {
    for (const mod of [0x04, 0x44, 0x84])
      for (let sib = 0; sib < 256; sib++) comparison.add([...prefix, 0x8b, mod, sib]);
  }
  // Prefixes up to and beyond 15 bytes, and REX that does not stand last.
  for (let count = 0; count < 16; count++) {
    for (const tail of [[0x90], [0x01, 0x00], [0x81, 0x00], [0x0f, 0xaf, 0x84, 0x00]]) {
      comparison.add([...new Array<number>(count).fill(0x66), ...tail]);
      comparison.add([...new Array<number>(count).fill(0x2e), ...tail]);
    }
  }
  for (const byte of rex) comparison.add([byte, 0x66, 0x01, 0x18]);
  comparison.flush();
}

const DESCRIBED = new Set<number>();
for (const entry of buildEngineModule(INSTRUCTIONS, INLINE_HANDLERS, { ramPages: 1 }).plan.entries) {
  for (let k = 0; k < (entry.row.opcodes === 8 ? 8 : 1); k++) DESCRIBED.add((entry.row.map << 8) | (entry.opcode + k));
}

for (const bits of [16, 32, 64] as const) {
  test(`${bits}-bit code`, { timeout: 120_000 }, (t) => {
    const comparison = new Comparison(bits);
    enumerate(bits, comparison);
    t.diagnostic(`${comparison.compared} encodings`);
    const lines = [...comparison.failures].map(
      ([key, list]) =>
        `${key} (${list.length}):\n${[...new Set(list)].map(({ bytes, why }) => `    ${bytes}: ${why}`).join("\n")}`,
    );
    assert.equal(lines.join("\n"), "");
    assert.deepEqual(
      [...comparison.unknown].map(([name, bytes]) => `${name}: ${bytes}`),
      [],
    );
  });
}
