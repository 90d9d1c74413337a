// The engine module with all instructions, as machines use it. Generating it takes about a third of a second: hosts keep the bytes.

import { INSTRUCTIONS } from "../isa/table.ts";
import { buildEngineModule, type EngineModule, type EngineModuleOptions } from "./engine-module.ts";
import { INLINE_HANDLERS } from "./inline-handlers.ts";

/** Memory of guest RAM that the module demands at least, in pages of 64 KiB. */
const RAM_PAGES = 1;

/** One that counts handlers has none inline. */
export function generateEngineModule(options: EngineModuleOptions = {}): EngineModule {
  const inline = options.countHandlers === true ? [] : INLINE_HANDLERS;
  return buildEngineModule(INSTRUCTIONS, inline, { ramPages: RAM_PAGES }, options);
}

let made: WebAssembly.Module | undefined;
let madeWithJournal: WebAssembly.Module | undefined;

/** The compiled standard module, made once per thread. */
export function engineModule(): WebAssembly.Module {
  made ??= new WebAssembly.Module(generateEngineModule().bytes);
  return made;
}

/** The same for engines whose regions are checked. */
export function engineModuleWithJournal(): WebAssembly.Module {
  madeWithJournal ??= new WebAssembly.Module(generateEngineModule({ journal: true }).bytes);
  return madeWithJournal;
}
