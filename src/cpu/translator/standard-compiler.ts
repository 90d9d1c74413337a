// The compiler for the engine module with all instructions.

import { INSTRUCTIONS } from "../../isa/table.ts";
import type { CodeConstants } from "./compile-service.ts";
import { Compiler } from "./compiler.ts";

export function standardCompiler(constants: CodeConstants): Compiler {
  return new Compiler(constants, { instructions: INSTRUCTIONS });
}
