"""From images to detections: of a data set with its densities, or of any images with drawings."""
