// The camera, where the browser lets a page have one: a picture as JPEG.

import { $, el } from "./dom.js";

export const hasCamera = () => Boolean(navigator.mediaDevices?.getUserMedia);

export async function openCamera(taken) {
  const dialog = $("camera");
  const video = $("viewfinder");
  const shutter = $("shutter");
  let stream = null;
  $("camera-problem").hidden = true;
  shutter.disabled = true;
  shutter.onclick = async () => {
    taken(await still(video));
    dialog.close();
  };
  $("camera-close").onclick = () => dialog.close();
  dialog.onclose = () => {
    stream?.getTracks().forEach((track) => track.stop());
    video.srcObject = null;
  };
  dialog.showModal();
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1280 } } });
    if (!dialog.open) return dialog.onclose();
    video.srcObject = stream;
    await video.play();
    shutter.disabled = false;
    shutter.focus();
  } catch (error) {
    $("camera-problem").textContent = error.name === "NotAllowedError" ? "The browser did not allow the camera." : "No camera answers.";
    $("camera-problem").hidden = false;
  }
}

function still(video) {
  const canvas = el("canvas", { width: video.videoWidth, height: video.videoHeight });
  canvas.getContext("2d").drawImage(video, 0, 0);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
}
