// Assembles the test kernels of guests/ with the system's gcc and binutils, into a cache outside the repository.

import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const GUESTS = join(import.meta.dirname, "../../guests");
const LIB = join(GUESTS, "lib");

/** Names of the kernels: the assembler files of guests/. */
export const GUEST_NAMES: readonly string[] = readdirSync(GUESTS)
  .filter((name) => name.endsWith(".S"))
  .map((name) => name.slice(0, -2))
  .sort();

function unavailable(): string | false {
  const gcc = spawnSync("gcc", ["-dumpmachine"], { encoding: "utf8" });
  if (gcc.error !== undefined) return "gcc is not installed";
  if (!/^(x86_64|i.86)/.test(gcc.stdout)) return "gcc does not assemble for x86";
  const missing = ["ld", "objcopy"].find((tool) => spawnSync(tool, ["--version"]).error !== undefined);
  return missing === undefined ? false : `${missing} is not installed`;
}

/** Why the kernels cannot be assembled here, or false where they can. */
export const SKIP: string | false = unavailable();

/** Path of the kernel as a Multiboot ELF file of 32 bits, from `name`.S in a folder. */
export function assemble(name: string, from = GUESTS): string {
  const hash = createHash("sha256");
  for (const file of [...readdirSync(LIB).map((entry) => join(LIB, entry)), join(from, `${name}.S`)]) {
    hash.update(readFileSync(file));
  }
  const folder = join(tmpdir(), "skep-guests");
  const kernel = join(folder, `${name}-${hash.digest("hex").slice(0, 16)}.elf`);
  if (existsSync(kernel)) return kernel;
  mkdirSync(folder, { recursive: true });
  const temporary = (what: string): string => `${kernel}.${process.pid}.${what}`;
  const compile = (source: string, object: string): void => {
    execFileSync("gcc", ["-c", "-x", "assembler-with-cpp", "-m64", `-I${LIB}`, source, "-o", object]);
  };
  compile(join(LIB, "start.S"), temporary("start.o"));
  compile(join(from, `${name}.S`), temporary("o"));
  const script = join(LIB, "link.ld");
  const options = ["-m", "elf_x86_64", "-n", "--no-warn-rwx-segments", "-T", script];
  execFileSync("ld", [...options, "-o", temporary("elf64"), temporary("start.o"), temporary("o")]);
  execFileSync("objcopy", ["-O", "elf32-i386", temporary("elf64"), temporary("elf")]);
  renameSync(temporary("elf"), kernel);
  return kernel;
}
