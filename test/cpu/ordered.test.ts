// Engines with fences around accesses to guest RAM, for hosts weaker than x86: they execute the same, and their regions have the fences too.

import assert from "node:assert/strict";
import { test } from "node:test";
import { generateEngineModule } from "../../src/cpu/standard-module.ts";
import { EXIT } from "../../src/isa/exit.ts";
import { AT, everything, Rig } from "./rig.ts";

/** atomic.fence */
const FENCE = Buffer.from([0xfe, 0x03, 0x00]);

// Fills 32 words of 8 bytes by a loop, adds them up, copies them by REP MOVSB, and adds the copy.
const PROGRAM = [
  [0xbf, 0x00, 0x00, 0x20, 0x00], // mov edi, 200000h
  [0xb9, 0x20, 0x00, 0x00, 0x00], // mov ecx, 32
  [0x48, 0x89, 0x4c, 0xcf, 0xf8], // mov [rdi+rcx*8-8], rcx
  [0x66, 0x0f, 0x6f, 0x07], // movdqa xmm0, [rdi]
  [0xff, 0xc9], // dec ecx
  [0x75, 0xf3], // jnz mov
  [0x89, 0xfe], // mov esi, edi
  [0xbf, 0x01, 0x10, 0x20, 0x00], // mov edi, 201001h
  [0xb9, 0x00, 0x01, 0x00, 0x00], // mov ecx, 256
  [0xf3, 0xa4], // rep movsb
  [0x31, 0xc0], // xor eax, eax
  [0xb9, 0x20, 0x00, 0x00, 0x00], // mov ecx, 32
  [0x48, 0x03, 0x84, 0xcf, 0xf8, 0xfe, 0xff, 0xff], // add rax, [rdi+rcx*8-264]
  [0xff, 0xc9], // dec ecx
  [0x75, 0xf4], // jnz add
  [0xf4],
].flat();

test("an ordered engine has fences and gives the same results, interpreted and translated", () => {
  const { bytes } = generateEngineModule({ ordered: true });
  assert.ok(Buffer.from(bytes).includes(FENCE));
  const module = new WebAssembly.Module(bytes);
  for (const threshold of [undefined, 1]) {
    const results = [undefined, module].map((each) => {
      const rig = new Rig(everything(), {}, threshold, undefined, undefined, each).longMode();
      const sums = [0, 1, 2].map(() => {
        assert.equal(rig.run(PROGRAM, AT.CODE, 1000), EXIT.HLT);
        return rig.engine.gpr(0);
      });
      return { sums, retired: rig.engine.retired(), data: rig.bytes.slice(AT.DATA, AT.DATA + 0x2000) };
    });
    assert.deepEqual(results[1], results[0]);
    assert.ok(results[0].sums[0] > 500n);
  }
});
