// What HTML cannot do. Every page works without it; with it, pages live.
import "./morph.js";
import "./live.js";
import "./clocks.js";
import "./forms.js";
import "./complete.js";
import "./sections.js";
import "./trace.js";
import "./jumps.js";
import "./reports.js";
import "./copying.js";
import "./keys.js";
import "./notify.js";
import "./zone.js";
