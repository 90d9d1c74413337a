// Assembles test programs with the system's GNU assembler and linker (Intel syntax).

import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Machine code of a program that is linked to run at `at`; `bits` is what it starts in (.code16, .code32, .code64 change it). */
export function assemble(source: string, at: number, bits: 16 | 32 | 64 = 64): Uint8Array {
  const folder = mkdtempSync(join(tmpdir(), "skep-as-"));
  try {
    const path = (name: string): string => join(folder, name);
    writeFileSync(path("a.s"), `.intel_syntax noprefix\n.code${bits}\n.globl _start\n_start:\n${source}\n`);
    execFileSync("as", ["--64", "-o", path("a.o"), path("a.s")]);
    execFileSync("ld", [
      "-m",
      "elf_x86_64",
      `-Ttext=0x${at.toString(16)}`,
      "--oformat",
      "binary",
      "-o",
      path("a.bin"),
      path("a.o"),
    ]);
    return new Uint8Array(readFileSync(path("a.bin")));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
