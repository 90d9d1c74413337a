// Writes docs/instructions.md, the page of supported instructions, from the instruction table: `bin/node bin/document-instructions.ts`.
// What is not supported is found by asking a disassembler (iced-x86) for all encodings that it knows.

import { readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import {
  Code,
  CodeExt,
  CpuidFeature,
  EncodingKind,
  Instruction,
  MandatoryPrefix,
  Mnemonic,
  OpCodeOperandKind,
} from "iced-x86";
import { parseRow, type Row, type RowOperand } from "../src/cpu/decode-table.ts";
import { CPU_MODEL_NAMES, CpuModelError, parseCpuModel } from "../src/cpu/model.ts";
import { FEATURES } from "../src/isa/features.ts";
import type { InstructionGroup } from "../src/isa/instruction.ts";
import { ALU } from "../src/isa/integer/alu.ts";
import { BITS } from "../src/isa/integer/bits.ts";
import { BOUND } from "../src/isa/integer/bound.ts";
import { BRANCH } from "../src/isa/integer/branch.ts";
import { DECIMAL } from "../src/isa/integer/decimal.ts";
import { MOVE } from "../src/isa/integer/move.ts";
import { MULTIPLY } from "../src/isa/integer/multiply.ts";
import { SHIFT } from "../src/isa/integer/shift.ts";
import { STACK } from "../src/isa/integer/stack.ts";
import { STRING } from "../src/isa/integer/string.ts";
import { MMX } from "../src/isa/mmx/mmx.ts";
import { SSE_CIPHERS } from "../src/isa/sse/cipher.ts";
import { SSE_COMPARISONS } from "../src/isa/sse/compare.ts";
import { SSE_CONVERSIONS } from "../src/isa/sse/convert.ts";
import { CRC32 } from "../src/isa/sse/crc32.ts";
import { SSE_ARITHMETIC } from "../src/isa/sse/float-arithmetic.ts";
import { SSE_INTEGER } from "../src/isa/sse/integer.ts";
import { SSE_MASKED_STORE } from "../src/isa/sse/masked-store.ts";
import { SSE_MOVES } from "../src/isa/sse/move.ts";
import { SSE_SHUFFLES } from "../src/isa/sse/shuffle.ts";
import { SSE_STRINGS } from "../src/isa/sse/string-compare.ts";
import { CONTROL_INSTRUCTIONS } from "../src/isa/system/control.ts";
import { CPUID_INSTRUCTIONS } from "../src/isa/system/cpuid.ts";
import { INTERRUPTS } from "../src/isa/system/interrupts.ts";
import { IO } from "../src/isa/system/io.ts";
import { MSR_INSTRUCTIONS } from "../src/isa/system/msr.ts";
import { PRIVILEGED } from "../src/isa/system/privileged.ts";
import { RANDOM } from "../src/isa/system/random.ts";
import { SEGMENT_INSTRUCTIONS } from "../src/isa/system/segments.ts";
import { TABLE_INSTRUCTIONS } from "../src/isa/system/tables.ts";
import { TRANSFERS } from "../src/isa/system/transfers.ts";
import { XSAVE_INSTRUCTIONS } from "../src/isa/system/xsave.ts";
import { INSTRUCTIONS } from "../src/isa/table.ts";
import { X87_ARITHMETIC } from "../src/isa/x87/arithmetic-instructions.ts";
import { X87_COMPARE } from "../src/isa/x87/compare-instructions.ts";
import { X87_CONTROL } from "../src/isa/x87/control-instructions.ts";
import { X87_LOAD_STORE } from "../src/isa/x87/load-store-instructions.ts";
import { X87_TRANSCENDENTAL } from "../src/isa/x87/transcendental-instructions.ts";

/** Where the page lies. */
export const PAGE_PATH = fileURLToPath(new URL("../docs/instructions.md", import.meta.url));
export const COMMAND = "bin/node bin/document-instructions.ts";

const GROUPS: readonly (readonly [title: string, group: InstructionGroup])[] = [
  ["Data movement and NOPs", MOVE],
  ["Integer arithmetic and logic", ALU],
  ["Shifts and rotates", SHIFT],
  ["Multiplication and division", MULTIPLY],
  ["Bits, exchange and compare", BITS],
  ["Stack", STACK],
  ["Branches", BRANCH],
  ["Strings", STRING],
  ["Decimal adjustment", DECIMAL],
  ["Array bounds", BOUND],
  ["Interrupts", INTERRUPTS],
  ["Far transfers and system calls", TRANSFERS],
  ["Segment registers", SEGMENT_INSTRUCTIONS],
  ["Descriptor tables", TABLE_INSTRUCTIONS],
  ["Control and debug registers", CONTROL_INSTRUCTIONS],
  ["Model-specific registers, time stamp", MSR_INSTRUCTIONS],
  ["Processor control", PRIVILEGED],
  ["Ports", IO],
  ["CPUID", CPUID_INSTRUCTIONS],
  ["Random numbers", RANDOM],
  ["State images", XSAVE_INSTRUCTIONS],
  ["x87: loads and stores", X87_LOAD_STORE],
  ["x87: arithmetic", X87_ARITHMETIC],
  ["x87: comparison", X87_COMPARE],
  ["x87: control", X87_CONTROL],
  ["x87: transcendental", X87_TRANSCENDENTAL],
  ["MMX", MMX],
  ["SSE: moves", SSE_MOVES],
  ["SSE: masked store", SSE_MASKED_STORE],
  ["SSE: integers", SSE_INTEGER],
  ["SSE: shuffles", SSE_SHUFFLES],
  ["SSE: floating point", SSE_ARITHMETIC],
  ["SSE: comparison", SSE_COMPARISONS],
  ["SSE: conversion", SSE_CONVERSIONS],
  ["SSE: text strings", SSE_STRINGS],
  ["CRC32", CRC32],
  ["AES and carry-less multiplication", SSE_CIPHERS],
];

const SIZES: { readonly [size: string]: string } = {
  b: "8",
  w: "16",
  d: "32",
  q: "64",
  v: "16/32/64",
  y: "32/64",
  z: "16/32",
  x: "128",
  p: "16:16/32/64",
  s: "16&32/64",
};
const FIXED: { readonly [place: string]: string } = { b0: "AL", b1: "CL", w0: "AX", w2: "DX", d0: "EAX" };

/** An operand in the manuals' words (SDM Vol. 2A 3.1.1.3). */
function operandText(row: Row, { kind, size, fixed, signed }: RowOperand): string {
  const legacyOnly = row.options.has("i64");
  const bits = legacyOnly ? (SIZES[size] ?? "").replace("/64", "") : (SIZES[size] ?? "");
  switch (kind) {
    case "fixed":
      return FIXED[`${size}${fixed}`] ?? (legacyOnly ? "AX/EAX" : "AX/EAX/RAX");
    case "one":
      return "1";
    case "E":
      return `r/m${bits}`;
    case "G":
    case "R":
    case "Z":
      return `r${bits}`;
    case "M":
      return `m${bits}`;
    case "I":
      return `imm${bits}${signed ? " (sign-extended)" : ""}`;
    case "J":
      return `rel${bits}`;
    case "O":
      return `moffs${bits}`;
    case "A":
      return "ptr16:16/32";
    case "S":
      return "Sreg";
    case "C":
      return "CRn";
    case "D":
      return "DRn";
    case "V":
    case "U":
      return "xmm";
    case "W":
      return `xmm/m${bits}`;
    case "Q":
      return `mm/m${bits}`;
    default:
      // In x87 rows the register of the second opcode byte is described as one.
      return row.map === 0 ? "ST(i)" : "mm";
  }
}

/** The fences' register operand only says that their ModRM byte has mod = 3. */
const NO_OPERANDS = /FENCE$/;

function tableLine(row: Row): string {
  const { instruction, operands, options, text } = row;
  const encoding = text.split(/[:;]/)[0].trim();
  const shown = NO_OPERANDS.test(instruction.name) ? [] : operands.map((operand) => operandText(row, operand));
  const destination = operands[0]?.kind;
  const cells = [
    instruction.name,
    `\`${encoding}\``,
    shown.join(", "),
    options.has("i64") ? "16, 32" : options.has("o64") ? "64" : "",
    instruction.feature ?? "",
    instruction.lock === true && (destination === "E" || destination === "M") ? "yes" : "",
    instruction.reads ?? "",
    instruction.writes ?? "",
    instruction.undefined ?? "",
  ];
  return `| ${cells.join(" | ")} |`;
}

const HEADER = [
  "| instruction | encoding | operands | modes | feature | LOCK | reads | writes | undefined |",
  "|---|---|---|---|---|---|---|---|---|",
];

function groupSection([title, group]: readonly [string, InstructionGroup]): string[] {
  const rows = group.flatMap((instruction) => instruction.rows.map((text) => parseRow(instruction, text)));
  return [`### ${title}`, "", ...HEADER, ...rows.map(tableLine), ""];
}

/** Whether some CPU model has the feature or can be given it. */
function available(feature: string): boolean {
  try {
    parseCpuModel(`max,+${feature}`);
    return true;
  } catch (error) {
    if (error instanceof CpuModelError) return false;
    throw error;
  }
}

function featureSection(): string[] {
  const models = CPU_MODEL_NAMES.map((name) => parseCpuModel(name));
  const lines = Object.entries(FEATURES).map(([name, { leaf, subleaf, register, bit }]) => {
    const place = `${leaf.toString(16).toUpperCase()}H${subleaf === 0 ? "" : `.${subleaf}`} ${register.toUpperCase()} bit ${bit}`;
    const having = models.filter(({ features }) => features.has(name)).map((model) => model.name);
    const can =
      having.length > 0 ? having.join(", ") : available(name) ? `none; \`+${name}\` adds it` : "cannot be had";
    const encodings = INSTRUCTIONS.filter(({ feature }) => feature === name).flatMap(({ rows }) => rows).length;
    return `| ${name} | ${place} | ${can} | ${encodings === 0 ? "" : encodings} |`;
  });
  return ["| feature | CPUID | models | encodings |", "|---|---|---|---|", ...lines, ""];
}

/** The rows that an encoding of the disassembler's list falls under. */
function rowsOf(rows: readonly Row[], code: number): readonly Row[] {
  const known = CodeExt.opCode(code);
  const two = known.opCodeLength === 2;
  const opcode = two ? known.opCode >> 8 : known.opCode;
  const modrm = known.opCode & 0xff;
  const reg = two ? (modrm >> 3) & 7 : known.groupIndex;
  const rm = two ? modrm & 7 : known.rmGroupIndex;
  const operands = Array.from({ length: known.opCount }, (_, n) => OpCodeOperandKind[known.opKind(n)]);
  const memoryOnly = operands.some((kind) => /^(mem$|mem_mpx|mem_mib|sibmem)/.test(kind));
  const registerOnly = two || operands.some((kind) => /_rm$/.test(kind));
  const prefix = known.mandatoryPrefix === MandatoryPrefix.None ? "any" : known.mandatoryPrefix - MandatoryPrefix.PNP;
  return rows.filter(
    (row) =>
      row.map === known.table &&
      opcode >= row.opcode &&
      opcode < row.opcode + row.opcodes &&
      (row.prefix === "any" || prefix === "any" || row.prefix === prefix) &&
      (reg < 0 || row.reg < 0 || row.reg === reg) &&
      (rm < 0 || row.rm < 0 || row.rm === rm) &&
      !(memoryOnly && row.mod === "register") &&
      !(registerOnly && row.mod === "memory"),
  );
}

/** Features of processors that nobody makes any more, and of makers whose extensions no other has. */
const ELSEWHERE = /^(INTEL\d|CYRIX|PADLOCK|CENTAUR|IA64|OSS|CL1INVMB|MOV_TR|UDBG|FPU287XL|FPU387SL|PCOMMIT)/;
const ENCODINGS: { readonly [kind: number]: string } = {
  [EncodingKind.VEX]: "VEX",
  [EncodingKind.EVEX]: "EVEX",
  [EncodingKind.XOP]: "XOP",
  [EncodingKind.D3NOW]: "3DNow!",
  [EncodingKind.MVEX]: "MVEX",
};

interface Gaps {
  /** Mnemonics by feature, for encodings without a row. */
  readonly missing: ReadonlyMap<string, ReadonlySet<string>>;
  /** Features by encoding that is not decoded at all. */
  readonly encodings: ReadonlyMap<string, ReadonlySet<string>>;
  /** Instructions that run as another one where a processor does not have them: mnemonic to the table's name. */
  readonly others: ReadonlyMap<string, ReadonlySet<string>>;
}

function add(map: Map<string, Set<string>>, key: string, value: string): void {
  const set = map.get(key);
  if (set === undefined) map.set(key, new Set([value]));
  else set.add(value);
}

function findGaps(): Gaps {
  const rows = INSTRUCTIONS.flatMap((instruction) => instruction.rows.map((text) => parseRow(instruction, text)));
  const missing = new Map<string, Set<string>>();
  const encodings = new Map<string, Set<string>>();
  const others = new Map<string, Set<string>>();
  const probe = new Instruction();
  for (const code of Object.values(Code)) {
    if (typeof code !== "number") continue;
    const known = CodeExt.opCode(code);
    // Forms with FWAIT before them are two instructions.
    if (!known.isInstruction || known.fwait) continue;
    probe.code = code;
    const features = Array.from(probe.cpuidFeatures(), (feature) => CpuidFeature[feature]);
    const mnemonic = Mnemonic[known.mnemonic].toUpperCase();
    const encoding = ENCODINGS[known.encoding];
    if (encoding !== undefined) {
      for (const feature of features) add(encodings, encoding, feature);
      continue;
    }
    const found = rowsOf(rows, code);
    if (found.length === 0) {
      if (!features.some((feature) => ELSEWHERE.test(feature))) add(missing, features.join(" and "), mnemonic);
      continue;
    }
    const prefixed = known.mandatoryPrefix === MandatoryPrefix.PF3 || known.mandatoryPrefix === MandatoryPrefix.PF2;
    const names = new Set(found.map(({ instruction }) => instruction.name));
    const asNop = names.has("NOP") && !/NOP/.test(mnemonic);
    const ignoresPrefix = prefixed && found.every((row) => row.prefix === "any");
    if (names.size === 1 && !names.has(mnemonic) && (asNop || ignoresPrefix)) add(others, [...names][0], mnemonic);
  }
  probe.free();
  return { missing, encodings, others };
}

const sorted = (names: Iterable<string>): string => [...names].sort().join(", ");

function gapSection(): string[] {
  const { missing, encodings, others } = findGaps();
  return [
    "## Not supported",
    "",
    "Found by asking iced-x86 for all encodings that it knows; those of processors long gone and of single makers (Cyrix, Centaur, VIA and",
    "early steppings of Intel's) are left out. Each encoding here raises #UD.",
    "",
    "Whole encodings that are not decoded, with the CPUID features (by iced-x86's names) that need them:",
    "",
    ...[...encodings].map(([encoding, features]) => `- ${encoding}: ${sorted(features)}`),
    "",
    "Instructions in the ordinary opcode maps, by feature:",
    "",
    ...[...missing]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([feature, mnemonics]) => `- ${feature}: ${sorted(mnemonics)}`),
    "",
    "Encodings that run as another instruction: hints on newer processors that are NOPs here, and prefixes that the table's row does not look at:",
    "",
    ...[...others].map(([name, mnemonics]) => `- as ${name}: ${sorted(mnemonics)}`),
    "",
    "Features that CPUID could name and that no CPU model can be given: " +
      `${sorted(Object.keys(FEATURES).filter((name) => !available(name)))}.`,
    "",
  ];
}

/** The whole page. */
export function instructionPage(): string {
  const grouped = GROUPS.flatMap(([, group]) => group);
  const forgotten = INSTRUCTIONS.filter((instruction) => !grouped.includes(instruction));
  if (forgotten.length > 0 || grouped.length !== INSTRUCTIONS.length) {
    const names = forgotten.map(({ name }) => name).join(", ");
    throw new Error(`the groups of this page and the instruction table differ: ${names || "some are listed twice"}`);
  }
  const mnemonics = new Set(INSTRUCTIONS.map(({ name }) => name)).size;
  const encodings = INSTRUCTIONS.flatMap(({ rows }) => rows).length;
  return [
    "# Supported instructions",
    "",
    `Made from the instruction table (\`src/isa/table.ts\`) by \`${COMMAND}\`; a test fails when it is out of date.`,
    `The table has ${encodings} encodings of ${mnemonics} instructions.`,
    "",
    "How to read it:",
    "",
    "- *encoding*: as in the manuals. `/r` is a ModRM byte, `/0` to `/7` one with that number in its reg field, `+r` a register, `+cc` a",
    "  condition and `+i` an x87 register in the opcode. `NP`, `66`, `F3` and `F2` in front are required; without one of these, 66 selects the",
    "  operand size. A REX prefix may stand where 64-bit code allows it.",
    "- *operands*: 16/32/64 follow the operand size. 64 bits exist in 64-bit code only.",
    "- *modes*: 64 for 64-bit code only, `16, 32` for all but 64-bit code; empty for all.",
    "- *feature*: the CPUID flag without which the encoding raises #UD; empty where it is always there. `+name` and `-name` after the CPU",
    "  model change it.",
    "- *LOCK*: the prefix is allowed where the destination is memory. Everywhere else it raises #UD.",
    "- *reads*, *writes*, *undefined*: the arithmetic flags OF, SF, ZF, AF, PF, CF by their first letters. Flags that the manuals leave",
    "  undefined have some value after the instruction. Other bits of RFLAGS (DF, IF, IOPL and so on) are not listed.",
    "",
    "## Instructions",
    "",
    ...GROUPS.flatMap(groupSection),
    "## CPUID features",
    "",
    "Where each feature is reported, which CPU models have it, and how many encodings above depend on it.",
    "",
    ...featureSection(),
    ...gapSection(),
  ].join("\n");
}

if (import.meta.main) {
  const page = instructionPage();
  const before = await readFile(PAGE_PATH, "utf8").catch(() => "");
  await writeFile(PAGE_PATH, page);
  console.log(before === page ? "docs/instructions.md is up to date" : "docs/instructions.md is written anew");
}
