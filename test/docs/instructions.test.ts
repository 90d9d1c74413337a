// docs/instructions.md is what the instruction table says.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { COMMAND, instructionPage, PAGE_PATH } from "../../bin/document-instructions.ts";

test("the page of supported instructions is up to date", async () => {
  const page = await readFile(PAGE_PATH, "utf8");
  assert.ok(page === instructionPage(), `docs/instructions.md is not what the table says now: run ${COMMAND}`);
});

test("what the table has is not listed as missing", () => {
  const missing = instructionPage().split("## Not supported")[1];
  assert.ok(missing !== undefined);
  for (const name of ["MOVBE", "CMPXCHG16B", "XSAVE", "FLD", "FSIN", "PADDB", "SYSCALL", "CRC32", "AESENC"])
    assert.doesNotMatch(missing, new RegExp(`\\b${name}\\b`));
  for (const name of ["MONITOR", "VMLAUNCH", "GETSEC", "AVX2", "SHA1MSG1", "RSM", "3DNow!"])
    assert.ok(missing.includes(name), name);
});
