"""Data sets in COCO format and VOC layout, and the two embedded ones."""
