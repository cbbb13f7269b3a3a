"""monosemanticity"""
