"use strict";
// The viewer's page: two NiiVue canvases for each date (slices, surfaces) and the controls beside them. Inside, positions are RAS mm
// as NiiVue has them; what people read is LPS mm.
(() => {
  const scene = JSON.parse(document.getElementById("scene").textContent);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const one = (selector, within = document) => within.querySelector(selector);
  const root = document.documentElement;

  const PLANES = ["axial", "coronal", "sagittal"];
  const AXIS = { axial: 2, coronal: 1, sagittal: 0 };
  const FROM = { front: [180, 0], back: [0, 0], right: [270, 0], left: [90, 0], head: [180, 90], feet: [180, -90] };
  const START = [200, 12];
  const SCALE = 1.05;
  const MATTE = "Matte", GLASS = "Glass";
  /** Lungs like glass: clearer where one looks straight through the wall, denser along its edges. */
  const GLASS_FRAGMENT = `#version 300 es
precision highp float;
uniform float opacity;
in vec4 vClr;
in vec3 vN;
out vec4 color;
void main() {
  float facing = abs(normalize(vN).z);
  color = vec4(vClr.rgb * (0.6 + 0.4 * facing), min(1.0, opacity * (0.45 + 1.9 * pow(1.0 - facing, 1.6))));
}`;
  const CURSOR_MM = 0.7;
  const GAP = 0.004;
  const TAP_MS = 350, TAP_PX = 8, SWIPE_PX = 9;
  const NEAR_MM = 1e-3;
  const DRAG = { crosshair: 8, pan: 3, windowing: 9 };

  const state = {
    view: "grid", mode: "readers", level: 0, width: 1, plane: "axial", active: 0,
    layers: {}, opacity: {}, lesion: -1,
  };
  const panes = [];

  // ---------------------------------------------------------------- data

  const bytesOf = (id) => {
    const element = document.getElementById(id);
    const text = atob(element.textContent.trim());
    element.remove();
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return bytes;
  };

  const unpack = async (id) => {
    const stream = new Blob([bytesOf(id)]).stream().pipeThrough(new DecompressionStream("gzip"));
    return await new Response(stream).arrayBuffer();
  };

  /** A NIfTI image of a date's grid in memory. kind: "hu" (int16, HU / step) or "classes" (uint8). */
  const image = async (date, kind) => {
    const voxels = await unpack(date[kind]);
    const buffer = new ArrayBuffer(352 + voxels.byteLength);
    const head = new DataView(buffer);
    head.setInt32(0, 348, true);
    [3, ...date.size, 1, 1, 1, 1].forEach((n, i) => head.setInt16(40 + 2 * i, n, true));
    head.setInt16(68, kind === "hu" ? 0 : 1002, true); // NIFTI_INTENT_LABEL
    head.setInt16(70, kind === "hu" ? 4 : 2, true);
    head.setInt16(72, kind === "hu" ? 16 : 8, true);
    [1, ...date.spacing, 1, 1, 1, 1].forEach((n, i) => head.setFloat32(76 + 4 * i, n, true));
    head.setFloat32(108, 352, true);
    head.setFloat32(112, kind === "hu" ? date.step : 1, true);
    head.setUint8(123, 2); // mm
    head.setFloat32(124, kind === "hu" ? state.level + state.width / 2 : 3, true); // a range that is given is not searched for
    head.setFloat32(128, kind === "hu" ? state.level - state.width / 2 : 0, true);
    head.setInt16(254, 1, true);
    date.affine.forEach((n, i) => head.setFloat32(280 + 4 * i, n, true));
    [0x6e, 0x2b, 0x31, 0].forEach((n, i) => head.setUint8(344 + i, n));
    new Uint8Array(buffer, 352).set(new Uint8Array(voxels));
    return await niivue.NVImage.new(buffer, kind + ".nii", "gray", 1);
  };

  const mesh = async (surface, gl) => {
    const packed = new Uint16Array(await unpack(surface.points));
    const points = new Float32Array(packed.length);
    for (let i = 0; i < points.length; i++) points[i] = surface.low[i % 3] + packed[i] * surface.unit[i % 3];
    const triangles = new Uint32Array(await unpack(surface.triangles));
    const colour = new Uint8Array([...rgb(scene.colours[surface.layer]), 255]);
    return new niivue.NVMesh(points, triangles, surface.layer, colour, 1, true, gl);
  };

  const rgb = (colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));

  /**
   * NiiVue makes a gradient of the whole volume, for the lighting of volume renderings, whenever the window changes. Slices have no use
   * for it, and without a graphics card it takes most of the time: so one voxel of each slice is computed.
   */
  const withoutGradient = (nv) => {
    const cheap = nv.passThroughShader, render = nv.renderShader;
    const draw = render.use.bind(render);
    nv.blurShader = nv.sobelFirstOrderShader = {
      uniforms: {},
      use: (gl) => { cheap.use(gl); gl.enable(gl.SCISSOR_TEST); gl.scissor(0, 0, 1, 1); },
    };
    render.use = (gl) => { gl.disable(gl.SCISSOR_TEST); draw(gl); };
  };

  // ---------------------------------------------------------------- one date

  class Pane {
    constructor(element, index) {
      this.element = element;
      this.date = scene.dates[index];
      this.index = index;
      this.ready = false;
      const shared = { logLevel: "silent", loadingText: "", dragAndDropEnabled: false, isResizeCanvas: true, backColor: [0, 0, 0, 1] };
      this.slices = new niivue.Niivue({
        ...shared, isRadiologicalConvention: true, sagittalNoseLeft: true, isSliceMM: false, crosshairColor: [0.98, 0.82, 0.3, 1],
        crosshairWidthUnit: "mm", crosshairWidth: CURSOR_MM, crosshairGap: 9,
        isOrientationTextVisible: false, // the page has letters of its own, which can be read on white too
      });
      this.render = new niivue.Niivue({
        ...shared, backColor: [0.027, 0.035, 0.047, 1], show3Dcrosshair: true, crosshairColor: [0.98, 0.82, 0.3, 1], crosshairWidthUnit: "mm",
        crosshairWidth: 1.1, crosshairGap: 14, isOrientCube: true, sliceType: 4,
      });
    }

    async open() {
      const [left, right] = all("canvas", this.element);
      this.arrange();
      this.slices.meshShaders = this.slices.meshShaders.slice(0, 1); // what is not compiled does not delay the page
      await this.slices.attachToCanvas(left, false);
      withoutGradient(this.slices);
      this.slices.setMouseEventConfig({ leftButton: { primary: DRAG.crosshair, withShift: DRAG.pan }, rightButton: DRAG.windowing, centerButton: DRAG.pan });
      this.slices.setTouchEventConfig({ singleTouch: DRAG.crosshair, doubleTouch: DRAG.pan });
      this.hu = await image(this.date, "hu");
      this.classes = await image(this.date, "classes");
      this.classes.colormapLabel = this.lut();
      this.classes.opacity = state.opacity.overlay;
      this.setRange();
      this.slices.opts.atlasOutline = state.layers.outline ? 1 : 0;
      this.slices.volumes = [this.hu, this.classes];
      this.slices.setVolume(this.hu, 0); // makes it the grid that the other lies on, and uploads both
      this.render.meshShaders = [this.render.meshShaders.find((shader) => shader.Name === MATTE), { Name: GLASS, Frag: GLASS_FRAGMENT }];
      this.render.resetBriCon = (event) => this.pick(event); // what a double click and a long touch do
      await this.render.attachToCanvas(right, true);
      const meshes = [];
      for (const surface of this.date.surfaces) meshes.push(await mesh(surface, this.render.gl));
      for (const one of meshes) one.meshShaderIndex = one.name === "lung" ? 1 : 0;
      this.render.meshes = meshes;
      Object.assign(this.render.scene, { renderAzimuth: START[0], renderElevation: START[1], volScaleMultiplier: SCALE });
      this.showLayers();
      this.render.updateGLVolume();
      for (const nv of [this.slices, this.render]) nv.onLocationChange = (where) => moved(this, [...where.mm].slice(0, 3));
      for (const plane of PLANES) {
        const slider = one(`[data-plane="${plane}"] input`, this.element);
        slider.max = this.date.size[AXIS[plane]] - 1;
        slider.addEventListener("input", () => this.toSlice(plane, Number(slider.value)));
      }
      left.addEventListener("mousemove", (event) => event.buttons === 2 && windowDragged(this));
      left.addEventListener("pointerdown", (event) => touched(this, event));
      new Fingers(this, left.parentElement);
      right.addEventListener("pointerdown", () => { state.active = this.index; });
      this.ready = true;
    }

    setRange() {
      for (const name of ["cal_min", "robust_min"]) this.hu[name] = state.level - state.width / 2;
      for (const name of ["cal_max", "robust_max"]) this.hu[name] = state.level + state.width / 2;
    }

    /** Colours of the labels 1 (reader only), 2 (model only), 3 (both). */
    lut() {
      const on = state.layers;
      const c = scene.colours;
      let shown;
      if (state.mode === "agreement") shown = [on.fn && c.fn, on.fp && c.fp, on.tp && c.tp];
      else shown = [on.reference && c.reference, on.prediction && c.prediction, on.reference ? (on.prediction ? c.shared : c.reference) : on.prediction && c.prediction];
      const rows = [[0, 0, 0], ...shown.map((colour) => (colour ? rgb(colour) : [0, 0, 0]))];
      return niivue.cmapper.makeLabelLut({
        R: rows.map((r) => r[0]), G: rows.map((r) => r[1]), B: rows.map((r) => r[2]), A: [0, ...shown.map((colour) => (colour ? 255 : 0))],
      });
    }

    applyWindow() {
      this.setRange();
      this.slices.refreshLayers(this.hu, 0);
      this.slices.drawScene();
    }

    applyOverlay() {
      this.classes.colormapLabel = this.lut();
      this.classes._opacity = state.opacity.overlay;
      this.slices.opts.atlasOutline = state.layers.outline ? 1 : 0;
      this.slices.refreshLayers(this.classes, 1);
      this.slices.drawScene();
    }

    showLayers() {
      for (const one of this.render.meshes) {
        const ofMode = { tp: "agreement", fp: "agreement", fn: "agreement", reference: "readers", prediction: "readers" }[one.name];
        one.visible = Boolean(state.layers[one.name]) && (!ofMode || ofMode === state.mode);
        one.opacity = one.name === "lung" ? state.opacity.lung : state.opacity.lesion;
      }
      this.render.opts.show3Dcrosshair = state.layers.cursor;
    }

    applyLayers() {
      this.showLayers();
      this.render.drawScene();
      this.slices.setCrosshairWidth(state.layers.cursor ? CURSOR_MM : 0);
    }

    /** The cursor to what is under the pointer; lungs are looked through. */
    pick(event) {
      const lungs = this.render.meshes.filter((one) => one.name === "lung" && one.visible);
      for (const one of lungs) one.visible = false;
      niivue.Niivue.prototype.resetBriCon.call(this.render, event);
      for (const one of lungs) one.visible = true;
      this.render.drawScene();
    }

    get mm() {
      return [...this.slices.frac2mm(this.slices.scene.crosshairPos)].slice(0, 3);
    }

    /** Put the cursor at RAS mm, kept inside the grid. */
    place(mm) {
      const frac = this.slices.mm2frac(mm).map((one) => Math.min(1, Math.max(0, one)));
      this.slices.scene.crosshairPos = frac;
      this.slices.drawScene();
      this.render.scene.crosshairPos = this.render.mm2frac(mm);
      this.render.drawScene();
      this.tell();
    }

    /** Number of the slice through the cursor, from the foot, the front or the patient's right. */
    slice(plane) {
      const axis = AXIS[plane];
      const lps = toLps(this.mm);
      return Math.min(this.date.size[axis] - 1, Math.max(0, Math.round((lps[axis] - this.date.origin[axis]) / this.date.spacing[axis])));
    }

    toSlice(plane, index) {
      const lps = toLps(this.mm);
      const axis = AXIS[plane];
      lps[axis] = this.date.origin[axis] + index * this.date.spacing[axis];
      goTo(this, toLps(lps));
    }

    tell() {
      for (const plane of PLANES) {
        const tile = one(`[data-plane="${plane}"]`, this.element);
        const index = this.slice(plane);
        one("input", tile).value = index;
        one("span", tile).textContent = `${plane[0].toUpperCase()}${plane.slice(1)} ${index + 1} / ${this.date.size[AXIS[plane]]}`;
      }
    }

    arrange() {
      const box = this.element.getBoundingClientRect();
      const tiles = tilesOf(state.view, box.width / Math.max(1, box.height));
      const types = { axial: 0, coronal: 1, sagittal: 2 };
      const slices = PLANES.filter((plane) => tiles[plane]).map((plane) => ({ sliceType: types[plane], position: inset(tiles[plane]) }));
      for (const plane of [...PLANES, "render"]) {
        const tile = one(`.tile[data-plane="${plane}"]`, this.element);
        tile.hidden = !tiles[plane];
        if (tiles[plane]) setBox(tile, tiles[plane]);
      }
      one(".hold.slices", this.element).classList.toggle("off", !slices.length);
      one(".hold.render", this.element).classList.toggle("off", !tiles.render);
      if (tiles.render) setBox(one(".hold.render", this.element), tiles.render);
      this.slices.customLayout = slices;
      if (this.ready) this.slices.drawScene();
    }
  }

  /** Fingers on slices: a tap moves the cursor, two spread or pinch to zoom, two go up and down through the slices. */
  class Fingers {
    constructor(pane, hold) {
      this.pane = pane;
      for (const name of ["touchstart", "touchmove", "touchend"]) hold.addEventListener(name, (event) => this[name](event), { capture: true, passive: false });
    }

    touchstart(event) {
      const touch = event.touches[0];
      this.tap = event.touches.length === 1 ? { x: touch.clientX, y: touch.clientY, at: event.timeStamp } : null;
      this.two = event.touches.length === 2 ? spread(event.touches) : null;
      if (event.touches.length === 1) this.from = [...this.pane.mm];
      if (this.two) {
        event.stopPropagation();
        this.forgetFirst();
      }
      event.preventDefault();
    }

    /** Two fingers never land at once: what the first did alone, or would still do, is undone. */
    forgetFirst() {
      const data = this.pane.slices.uiData;
      clearTimeout(data.touchTimer);
      Object.assign(data, { touchTimer: null, touchdown: false, isDragging: false });
      if (this.from) goTo(this.pane, this.from);
    }

    touchmove(event) {
      if (!this.two || event.touches.length !== 2) return;
      event.stopPropagation();
      event.preventDefault();
      const now = spread(event.touches);
      const ratio = now.apart / Math.max(1, this.two.apart);
      if (Math.abs(ratio - 1) > 0.04) {
        zoom(ratio);
        this.two = now;
      } else if (Math.abs(now.y - this.two.y) > SWIPE_PX) {
        step(state.plane, now.y < this.two.y ? 1 : -1);
        this.two = now;
      }
    }

    touchend(event) {
      const touch = event.changedTouches[0];
      const tap = this.tap;
      this.tap = null;
      if (this.two) event.stopPropagation();
      if (!event.touches.length) this.two = this.from = null;
      if (!tap || event.timeStamp - tap.at > TAP_MS || Math.hypot(touch.clientX - tap.x, touch.clientY - tap.y) > TAP_PX) return;
      const nv = this.pane.slices;
      const box = nv.canvas.getBoundingClientRect();
      const frac = nv.canvasPos2frac([touch.clientX - box.left, touch.clientY - box.top].map((one) => one * nv.uiData.dpr));
      if (frac[0] >= 0) goTo(this.pane, [...nv.frac2mm(frac)].slice(0, 3));
    }
  }

  const spread = ([a, b]) => ({ apart: Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY), y: (a.clientY + b.clientY) / 2 });

  const setBox = (element, [left, top, width, height]) => {
    Object.assign(element.style, { left: `${100 * left}%`, top: `${100 * top}%`, width: `${100 * width}%`, height: `${100 * height}%` });
  };

  const inset = ([left, top, width, height]) => [left + GAP, top + GAP, width - 2 * GAP, height - 2 * GAP];

  const tilesOf = (view, aspect) => {
    if (view !== "grid") return { [view]: [0, 0, 1, 1] };
    if (aspect > 1.9) return { axial: [0, 0, 0.36, 1], render: [0.36, 0, 0.36, 1], coronal: [0.72, 0, 0.28, 0.5], sagittal: [0.72, 0.5, 0.28, 0.5] };
    if (aspect > 0.8) return { axial: [0, 0, 0.5, 0.5], render: [0.5, 0, 0.5, 0.5], coronal: [0, 0.5, 0.5, 0.5], sagittal: [0.5, 0.5, 0.5, 0.5] };
    return { axial: [0, 0, 1, 0.38], render: [0, 0.38, 1, 0.35], coronal: [0, 0.73, 0.5, 0.27], sagittal: [0.5, 0.73, 0.5, 0.27] };
  };

  const toLps = (mm) => [-mm[0], -mm[1], mm[2]];
  const near = (a, b) => a.every((one, i) => Math.abs(one - b[i]) < NEAR_MM);

  // ---------------------------------------------------------------- cursor, camera, link

  /** A point of one date in another: through the first date's millimetres, where the dates say how they lie to each other. */
  const across = (mm, from, to) => (from === to ? mm : apply(scene.dates[to].from_first, apply(scene.dates[from].to_first, mm)));
  const apply = (matrix, mm) => [0, 1, 2].map((i) => matrix[4 * i] * mm[0] + matrix[4 * i + 1] * mm[1] + matrix[4 * i + 2] * mm[2] + matrix[4 * i + 3]);

  let moving = false;
  const moved = (pane, mm) => {
    if (moving || !pane.ready || !mm.every(Number.isFinite)) return;
    goTo(pane, mm);
  };

  const goTo = (pane, mm) => {
    moving = true;
    try {
      pane.place(mm);
      if (state.layers.linked) for (const other of panes) if (other !== pane && other.ready) other.place(across(mm, pane.index, other.index));
    } finally {
      moving = false;
    }
    state.active = pane.index;
    report(pane);
  };

  const WORDS = { 0: "no lesion", 1: "reader", 2: "model", 3: "reader and model" };
  const report = (pane) => {
    const mm = pane.mm;
    const at = (volume) => { const vox = volume.mm2vox(mm); return volume.getValue(vox[0], vox[1], vox[2]); };
    const lps = toLps(mm).map((n) => n.toFixed(1).replace("-", "−"));
    const hu = Math.round(at(pane.hu));
    const where = panes.length > 1 ? `${pane.date.label}: ` : "";
    one("#spot").textContent = `${where}${String(hu).replace("-", "−")} HU, ${WORDS[Math.round(at(pane.classes))]}. x ${lps[0]}, y ${lps[1]}, z ${lps[2]} mm (LPS)`;
    root.dataset.cursor = toLps(mm).map((n) => n.toFixed(3)).join(" ");
  };

  const link = () => {
    for (const pane of panes) {
      const others = panes.filter((other) => other !== pane);
      const on = Boolean(state.layers.linked);
      pane.slices.broadcastTo(on ? others.map((other) => other.slices) : [], { zoomPan: true });
      pane.render.broadcastTo(on ? others.map((other) => other.render) : [], { "3d": true });
    }
  };

  const look = (azimuth, elevation, pane) => {
    for (const one of panes) if (state.layers.linked || one === pane || !pane) one.render.setRenderAzimuthElevation(azimuth, elevation);
  };

  const zoom = (factor) => {
    for (const pane of panes) {
      const pan = pane.slices.scene.pan2Dxyzmm;
      const next = Math.min(12, Math.max(0.5, pan[3] * factor));
      const change = pan[3] - next;
      pane.mm.forEach((n, i) => { pan[i] += change * n; });
      pan[3] = next;
      pane.slices.drawScene();
    }
  };

  const touched = (pane, event) => {
    const box = event.target.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width, y = (event.clientY - box.top) / box.height;
    state.active = pane.index;
    const tiles = tilesOf(state.view, box.width / box.height);
    state.plane = PLANES.find((plane) => tiles[plane] && inside(tiles[plane], x, y)) || state.plane;
  };
  const inside = ([left, top, width, height], x, y) => x >= left && x < left + width && y >= top && y < top + height;

  // ---------------------------------------------------------------- controls

  let pending = null;
  /** At most one redraw of the volumes for each frame, whatever the sliders do. */
  const soon = (what) => {
    if (!pending) {
      pending = new Set();
      requestAnimationFrame(() => {
        const todo = pending;
        pending = null;
        for (const pane of panes) if (pane.ready) for (const name of todo) pane[name]();
        root.dataset.drawn = String(Number(root.dataset.drawn || 0) + 1);
      });
    }
    pending.add(what);
  };

  const showWindow = () => {
    for (const name of ["level", "width"]) {
      one(`#${name}`).value = state[name];
      one(`output[for="${name}"]`).textContent = `${String(Math.round(state[name])).replace("-", "−")} HU`;
    }
    for (const button of all("[data-level]")) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.level) === state.level && Number(button.dataset.width) === state.width));
    }
  };

  const setWindow = (level, width) => {
    Object.assign(state, { level, width });
    showWindow();
    soon("applyWindow");
  };

  const windowDragged = (pane) => {
    const low = pane.hu.cal_min, high = pane.hu.cal_max;
    if (high > low) setWindow((low + high) / 2, high - low);
  };

  const setOpacity = (name, percent) => {
    state.opacity[name] = percent / 100;
    one(`output[for="opacity-${name}"]`).textContent = `${percent} %`;
  };

  const setMode = (mode) => {
    state.mode = mode;
    for (const button of all("[data-mode]")) button.setAttribute("aria-pressed", String(button.dataset.mode === mode));
    for (const part of all("[data-of]")) part.hidden = part.dataset.of !== mode;
    soon("applyOverlay");
    soon("applyLayers");
  };

  const setView = (view) => {
    state.view = view;
    if (PLANES.includes(view)) state.plane = view;
    for (const button of all("[data-view]")) button.setAttribute("aria-pressed", String(button.dataset.view === view));
    for (const pane of panes) pane.arrange();
  };

  const setLayer = (name, on) => {
    state.layers[name] = on;
    const box = one(`[data-layer="${name}"]`);
    if (box) box.checked = on;
    if (name === "linked") {
      link();
      if (on) goTo(panes[state.active], panes[state.active].mm);
    }
    soon("applyOverlay");
    soon("applyLayers");
  };

  const rows = all("tr[data-mm]");
  const jump = (index) => {
    if (!rows.length) return;
    state.lesion = (index + rows.length) % rows.length;
    rows.forEach((row, i) => row.classList.toggle("here", i === state.lesion));
    const row = rows[state.lesion];
    const list = row.closest(".list"); // only the list scrolls: on a phone the page stays at the pictures
    list.scrollTop = row.offsetTop - list.clientHeight / 2;
    const pane = panes[Number(row.dataset.date)];
    goTo(pane, toLps(row.dataset.mm.split(" ").map(Number)));
  };

  const step = (plane, by) => {
    const pane = panes[state.active];
    const index = Math.min(pane.date.size[AXIS[plane]] - 1, Math.max(0, pane.slice(plane) + by));
    pane.toSlice(plane, index);
  };

  /** Right, left, up, down on the screen: the axis of the patient that they are in each plane, and which way. */
  const ARROWS = {
    axial: { ArrowRight: ["sagittal", 1], ArrowLeft: ["sagittal", -1], ArrowUp: ["coronal", -1], ArrowDown: ["coronal", 1] },
    coronal: { ArrowRight: ["sagittal", 1], ArrowLeft: ["sagittal", -1], ArrowUp: ["axial", 1], ArrowDown: ["axial", -1] },
    sagittal: { ArrowRight: ["coronal", 1], ArrowLeft: ["coronal", -1], ArrowUp: ["axial", 1], ArrowDown: ["axial", -1] },
  };

  const reset = () => {
    for (const pane of panes) {
      pane.slices.scene.pan2Dxyzmm = [0, 0, 0, 1];
      pane.render.setScale(SCALE);
    }
    look(...START);
    const preset = one("[data-level]");
    setWindow(Number(preset.dataset.level), Number(preset.dataset.width));
    setView("grid");
  };

  const presets = all("[data-level]");
  const KEYS = {
    "1": () => setView("grid"), "2": () => setView("axial"), "3": () => setView("coronal"), "4": () => setView("sagittal"), "5": () => setView("render"),
    PageUp: () => step(state.plane, 1), PageDown: () => step(state.plane, -1), ".": () => step(state.plane, 1), ",": () => step(state.plane, -1),
    n: () => jump(state.lesion + 1), p: () => jump(state.lesion - 1),
    w: () => presets[(presets.findIndex((one) => one.getAttribute("aria-pressed") === "true") + 1) % presets.length].click(),
    r: () => flip("reference"), m: () => flip("prediction"), l: () => flip("lung"), c: () => flip("cursor"),
    a: () => all("[data-mode]").length && setMode(state.mode === "agreement" ? "readers" : "agreement"),
    o: () => flip("outline"),
    "+": () => zoom(1.25), "=": () => zoom(1.25), "-": () => zoom(0.8),
    "0": reset, s: () => save(), "?": () => one("#helps").showModal(),
  };
  const flip = (name) => one(`[data-layer="${name}"]`) && setLayer(name, !state.layers[name]);

  const onKey = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || one("#helps").open) return;
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.target.type !== "checkbox";
    const arrow = ARROWS[state.plane][event.key];
    const act = KEYS[event.key] || KEYS[event.key.toLowerCase()] || (arrow && (() => step(...arrow)));
    if (event.target.tagName === "CANVAS" && event.key !== "Tab") event.stopPropagation(); // NiiVue has keys of its own
    if (!act || (typing && (arrow || /^(Page|[-+=0-9])/.test(event.key)))) return;
    event.preventDefault();
    if (panes.every((pane) => pane.ready)) act();
  };

  // ---------------------------------------------------------------- picture

  const picture = () => {
    const ratio = window.devicePixelRatio || 1;
    const area = one(".dates").getBoundingClientRect();
    const sheet = document.createElement("canvas");
    const foot = 26;
    sheet.width = area.width * ratio;
    sheet.height = (area.height + foot) * ratio;
    const draw = sheet.getContext("2d");
    draw.scale(ratio, ratio);
    draw.fillStyle = "#0c0f13";
    draw.fillRect(0, 0, area.width, area.height + foot);
    draw.font = "13px system-ui, Arial, sans-serif";
    for (const pane of panes) {
      for (const [nv, hold] of [[pane.slices, ".hold.slices"], [pane.render, ".hold.render"]]) {
        const place = one(hold, pane.element);
        if (place.classList.contains("off")) continue;
        const box = place.getBoundingClientRect();
        nv.drawScene(); // the buffer is kept only until the next frame
        draw.drawImage(nv.canvas, box.left - area.left, box.top - area.top, box.width, box.height);
      }
      draw.fillStyle = "#dde3ea";
      const head = one("h2", pane.element.parentElement);
      const box = head.getBoundingClientRect();
      draw.fillText([...head.children].map((part) => part.textContent).join("   "), box.left - area.left + 10, box.top - area.top + 18);
      for (const word of all(".tile:not([hidden]) > span, .tile:not([hidden]) > b", pane.element)) {
        const at = word.getBoundingClientRect();
        draw.fillStyle = "#000a";
        draw.fillRect(at.left - area.left, at.top - area.top, at.width, at.height);
        draw.fillStyle = "#dde3ea";
        draw.textAlign = "center";
        draw.fillText(word.textContent, at.left - area.left + at.width / 2, at.top - area.top + at.height - 5);
        draw.textAlign = "start";
      }
    }
    draw.fillStyle = "#ff8b80";
    draw.fillText(`${one(".use").textContent} · lungshift viewer`, 10, area.height + 18);
    return sheet;
  };

  const save = () => {
    picture().toBlob((blob) => {
      const anchor = document.createElement("a");
      anchor.href = URL.createObjectURL(blob);
      anchor.download = "lungshift-viewer.png";
      anchor.click();
      setTimeout(() => URL.revokeObjectURL(anchor.href), 1000);
    }, "image/png");
  };

  // ---------------------------------------------------------------- start

  const wire = () => {
    for (const box of all("[data-layer]")) {
      state.layers[box.dataset.layer] = box.checked;
      box.addEventListener("change", () => setLayer(box.dataset.layer, box.checked));
    }
    for (const name of ["lung", "lesion", "overlay"]) {
      const slider = one(`#opacity-${name}`);
      if (!slider) continue;
      setOpacity(name, Number(slider.value));
      slider.addEventListener("input", () => { setOpacity(name, Number(slider.value)); soon(name === "overlay" ? "applyOverlay" : "applyLayers"); });
    }
    Object.assign(state, { level: Number(one("#level").value), width: Number(one("#width").value) });
    for (const name of ["level", "width"]) one(`#${name}`).addEventListener("input", (event) => setWindow(...Object.values({ level: state.level, width: state.width, [name]: Number(event.target.value) })));
    for (const button of presets) button.addEventListener("click", () => setWindow(Number(button.dataset.level), Number(button.dataset.width)));
    for (const button of all("[data-mode]")) button.addEventListener("click", () => setMode(button.dataset.mode));
    for (const button of all("[data-view]")) button.addEventListener("click", () => setView(button.dataset.view));
    rows.forEach((row, index) => one("button", row).addEventListener("click", () => jump(index)));
    for (const button of all("[data-from]")) {
      button.addEventListener("click", () => look(...FROM[button.dataset.from], panes[Number(button.closest("[data-date]").dataset.date)]));
    }
    one("#reset").addEventListener("click", reset);
    one("#save").addEventListener("click", save);
    one("#help").addEventListener("click", () => one("#helps").showModal());
    window.addEventListener("keydown", onKey, true);
    window.addEventListener("resize", () => panes.forEach((pane) => pane.ready && pane.arrange()));
    showWindow();
  };

  const fail = (why) => {
    root.dataset.failed = why;
    for (const wait of all(".wait")) {
      wait.hidden = false;
      wait.classList.add("failed");
      wait.textContent = `${why} The lesions are listed beside this.`;
    }
  };

  const start = async () => {
    if (!document.createElement("canvas").getContext("webgl2")) {
      fail("The pictures need WebGL2, which this browser does not offer. Try another browser, or switch on hardware acceleration.");
      return;
    }
    wire();
    for (const element of all(".pane")) panes.push(new Pane(element, panes.length));
    for (const pane of panes) {
      await new Promise((go) => setTimeout(go)); // lets the browser show what is being opened
      await pane.open();
      pane.slices.canvas.addEventListener("webglcontextlost", () => fail("The graphics card stopped drawing. Load the page again."));
    }
    link();
    const pane = panes[0];
    if (rows.length) jump(0);
    else goTo(pane, toLps(pane.date.centre));
    for (const one of panes) {
      for (const nv of [one.slices, one.render]) nv.gl.readPixels(0, 0, 1, 1, nv.gl.RGBA, nv.gl.UNSIGNED_BYTE, new Uint8Array(4)); // waits until it is drawn
      all(".wait", one.element).forEach((wait) => { wait.hidden = true; });
    }
    window.lungshiftViewer = { panes, state };
    root.dataset.ready = String(Math.round(performance.now()));
  };

  start().catch((error) => {
    console.error(error);
    fail(`The pictures could not be drawn: ${error.message}.`);
  });
})();
