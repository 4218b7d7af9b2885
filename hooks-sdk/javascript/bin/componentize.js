#!/usr/bin/env node
// stillpoint-componentize SOURCE COMPONENT
//
// Bundles a hook's source (JavaScript, or TypeScript, whose types are stripped) and makes a component of it,
// with QuickJS inside. esbuild and componentize-qjs are those of the project, as its lock file pins them.
// All of WASI is stubbed out: QuickJS's own imports are files, too, which no operator can grant.
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const [source, output, ...more] = process.argv.slice(2);
if (output === undefined || more.length > 0) {
  console.error("usage: stillpoint-componentize SOURCE COMPONENT");
  process.exit(2);
}

const wit = fileURLToPath(new URL("../wit", import.meta.url));

try {
  const [esbuild, quickjs] = [await tool("esbuild"), await tool("componentize-qjs")];
  const bundled = await esbuild.build({
    entryPoints: [source],
    bundle: true,
    format: "esm",
    platform: "neutral",
    target: "es2022",
    mainFields: ["module", "main"],
    conditions: ["stillpoint"],
    external: ["stillpoint:*", "wasi:*"],
    write: false,
    logLevel: "error",
  });
  const { component } = await quickjs.componentize({
    witPath: wit,
    world: "hook",
    jsSource: bundled.outputFiles[0].text,
    stubWasi: true,
    sync: true,
  });
  await mkdir(path.dirname(output), { recursive: true });
  await writeFile(output, component);
  const { version } = JSON.parse(await readFile(new URL("../package.json", import.meta.url), "utf8"));
  console.log(`${output}: ${component.length} bytes (stillpoint-hook ${version})`);
} catch (error) {
  console.error(`error: ${source} was not made into a component: ${error.message ?? error}`);
  process.exit(1);
}

/** A tool of the project that this runs in. */
async function tool(name) {
  try {
    const found = createRequire(path.resolve("package.json")).resolve(name);
    const module = await import(pathToFileURL(found));
    return module.default ?? module;
  } catch (error) {
    if (error.code !== "MODULE_NOT_FOUND") throw error;
    throw new Error(`${name} is not installed here; next: npm ci`);
  }
}
